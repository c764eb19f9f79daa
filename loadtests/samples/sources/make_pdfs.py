"""Print the HTML files beside this script to the PDF samples in the folder above; read their text back.

Run by hand when a source changes: `python loadtests/samples/sources/make_pdfs.py [chromium]`. The PDFs are
committed; no test, check or run calls this script, so nobody needs a browser. It needs Chromium and the
Noto CJK fonts.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pypdf import PdfReader

HERE = Path(__file__).resolve().parent
LARGEST_BYTES = 300_000  # a sample is read by people and by every clone of the repository
PRINT_SECONDS = 60  # a cold browser on a busy machine needs about ten


def main(argv: list[str]) -> int:
    """Print every source; the exit status is 1 when a PDF is too large or its text does not come out."""
    browser = argv[1] if len(argv) > 1 else shutil.which("chromium") or shutil.which("google-chrome") or ""
    if not browser:
        print("make_pdfs: expected Chromium on PATH or as the argument, found none", file=sys.stderr)
        return 1
    worst = 0
    for source in sorted(HERE.glob("*.html")):
        target = HERE.parent / f"{source.stem}.pdf"
        print_to_pdf(browser, source, target)
        worst = max(worst, inspect(target))
    return worst


def print_to_pdf(browser: str, source: Path, target: Path) -> None:
    """Print one page with a browser profile of its own, so that no open browser is touched."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={profile}",
                "--no-pdf-header-footer",
                f"--print-to-pdf={target}",
                source.as_uri(),
            ],
            check=True,
            timeout=PRINT_SECONDS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def inspect(target: Path) -> int:
    """Say what is in a PDF; 1 when it is too large or a page of it has no text."""
    pages = [page.extract_text() for page in PdfReader(target).pages]
    words = sum(len(page.split()) for page in pages)
    size = target.stat().st_size
    print(f"{target.name}: {len(pages)} pages, {words} words, {size} bytes")
    return int(size > LARGEST_BYTES or not all(page.split() for page in pages))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
