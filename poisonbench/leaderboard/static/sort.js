// Column headings become buttons that sort the rows; baselines stay above the defences.
"use strict";
{
  const moreIsBetter = /-(zero-shot|probe|poison)$/;

  const valueIn = (row, column) => {
    const cell = row.querySelector(`[data-column="${column}"]`);
    const value = cell?.dataset.value;
    return value === undefined || column === "name" ? value : Number(value);
  };

  const compare = (a, b, sign) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // no number: last, either way
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  };

  const sortBy = (heading) => {
    const column = heading.dataset.sort;
    const first = moreIsBetter.test(column) ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const order = heading.ariaSort === first ? second : first;
    const table = heading.closest("table");
    for (const other of table.querySelectorAll("[data-sort]")) other.ariaSort = "none";
    heading.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1;
    for (const body of table.tBodies) {
      body.append(...[...body.rows].sort((a, b) => compare(valueIn(a, column), valueIn(b, column), sign)));
    }
  };

  for (const heading of document.querySelectorAll("[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(heading));
    heading.append(button);
  }

  // A link into closed details opens them.
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const details = target && target.closest("details");
    if (!details) return;
    details.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
}
