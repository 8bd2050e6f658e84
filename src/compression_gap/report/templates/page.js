// Sort a table by the column that is clicked; save a figure as SVG, or its data as CSV.
const number = (t) => parseFloat(t.replace(/−/g, "-").replace(/[^\d.eE+-]/g, ""));
document.querySelectorAll("table.sorts thead th").forEach((th) => {
  th.title = "sort";
  th.addEventListener("click", () => {
    const body = th.closest("table").tBodies[0], i = th.cellIndex, up = (th.dataset.up = th.dataset.up === "1" ? "" : "1");
    const rows = [...body.rows].sort((a, b) => {
      const x = a.cells[i].textContent.trim(), y = b.cells[i].textContent.trim(), d = number(x) - number(y);
      return (Number.isNaN(d) ? x.localeCompare(y) : d) * (up ? 1 : -1);
    });
    body.append(...rows);
  });
});
function save(name, type, text) {
  const a = document.createElement("a");
  a.href = URL.createObjectURL(new Blob([text], { type }));
  a.download = name;
  a.click();
  URL.revokeObjectURL(a.href);
}
document.querySelectorAll("[data-svg]").forEach((a) => a.addEventListener("click", () => {
  save(a.dataset.svg + ".svg", "image/svg+xml", new XMLSerializer().serializeToString(a.closest("figure").querySelector("svg")));
}));
document.querySelectorAll("[data-csv]").forEach((a) => a.addEventListener("click", () => {
  save(a.dataset.csv + ".csv", "text/csv", JSON.parse(document.getElementById("csv").textContent)[a.dataset.csv]);
}));
