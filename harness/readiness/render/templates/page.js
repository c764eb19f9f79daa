// Adds to a page that is complete without it: language attribute, copy, filter, sort, zoom, unfolding for links and print.
(() => {
  "use strict";
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  // The radio buttons switch the language by CSS; this keeps <html lang> true for screen readers and hyphenation.
  all("input.lang").forEach((radio) => {
    const tell = () => { if (radio.checked) document.documentElement.lang = radio.value; };
    radio.addEventListener("change", tell);
    tell();
  });

  // A link to a folded claim opens it.
  const reveal = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Browsers without ::details-content print what is open.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    folded.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => { folded.forEach((d) => { d.open = false; }); folded = []; });

  all("button.copy").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("code").textContent;
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      button.classList.add("done");
      all("[data-when]", button).forEach((s) => { s.hidden = s.dataset.when !== "done"; });
      setTimeout(() => all("[data-when]", button).forEach((s) => { s.hidden = s.dataset.when === "done"; }), 1600);
    });
  });

  // Filter the claims by verdict and by words.
  const tools = document.getElementById("claim-tools");
  if (tools) {
    tools.hidden = false;
    const query = tools.querySelector("input");
    let verdict = "";
    const apply = () => {
      const words = query.value.trim().toLowerCase();
      all("[data-claim]").forEach((row) => {
        const fits = (!verdict || row.dataset.verdict === verdict) && row.textContent.toLowerCase().includes(words);
        row.toggleAttribute("data-gone", !fits);
      });
    };
    query.addEventListener("input", apply);
    all("button[data-verdict]", tools).forEach((button) => {
      button.addEventListener("click", () => {
        verdict = verdict === button.dataset.verdict ? "" : button.dataset.verdict;
        all("button[data-verdict]", tools).forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.verdict === verdict)));
        apply();
      });
    });
  }

  // Sort a table by a click on its heading.
  all("table.sortable").forEach((table) => {
    all("thead th", table).forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const up = heading.getAttribute("aria-sort") !== "ascending";
        all("thead th", table).forEach((h) => h.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
        const rows = Array.from(table.tBodies[0].rows);
        rows.sort((a, b) => key(a).localeCompare(key(b), undefined, { numeric: true }) * (up ? 1 : -1));
        table.tBodies[0].append(...rows);
      });
    });
  });

  // Zoom a chart: the same drawing, as wide as the window.
  all("button.zoom").forEach((button) => {
    button.hidden = false;
    const figure = button.closest("figure");
    button.addEventListener("click", () => {
      const on = figure.classList.toggle("zoomed");
      button.setAttribute("aria-pressed", String(on));
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") { figure.classList.remove("zoomed"); button.setAttribute("aria-pressed", "false"); }
    });
  });
})();
