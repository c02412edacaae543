// A click on a picture enlarges it; one on a column's head sorts its table: numbers from the largest, words from A; a second click turns it round.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const key = row => row.cells[column].dataset.sort;
    const compare = numeric ? (a, b) => key(a) - key(b) : (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true });
    head.firstElementChild.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : numeric;
      const rows = [...body.rows].sort((a, b) => descending ? compare(b, a) : compare(a, b));
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
for (const picture of document.querySelectorAll(".picture")) {
  picture.addEventListener("click", () => picture.parentElement.classList.toggle("large"));
}
