// The leaderboard's headings sort, and three menus narrow it. Without this file the table is whole.
const table = document.getElementById("leaderboard");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  const menus = document.createElement("p");
  const count = document.createElement("span");
  count.setAttribute("role", "status");

  const text = (row, column) => row.cells[column].textContent;

  function compare(first, second) {
    // Numbers as numbers; what is missing comes last in either direction.
    if (first === second) return 0;
    const [a, b] = [first, second].map(Number);
    return first && second && !isNaN(a) && !isNaN(b) ? a - b : first.localeCompare(second);
  }

  function sort(column) {
    const heading = headings[column];
    const numbers = rows.some((row) => /^0?\.\d/.test(text(row, column)));
    const before = heading.getAttribute("aria-sort");
    const first = numbers ? "descending" : "ascending"; // of scores, the best first
    const other = numbers ? "ascending" : "descending";
    const direction = before === first ? other : first;
    headings.forEach((each) => each.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    rows.sort((a, b) => {
      const values = [text(a, column), text(b, column)];
      const empty = values.map((value) => value === "" || value === "–");
      if (empty[0] !== empty[1]) return empty[0] ? 1 : -1;
      return sign * compare(...values);
    });
    body.append(...rows);
  }

  function narrow() {
    const wanted = [...menus.querySelectorAll("select")].map((menu) => [menu.dataset.column, menu.value]);
    let shown = 0;
    for (const row of rows) {
      const fits = wanted.every(([column, value]) => !value || text(row, column) === value);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = ` ${shown} of ${rows.length} rows`;
  }

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sort(column));
    heading.replaceChildren(button);
  });
  for (const column of [0, 2, 3]) {
    const label = document.createElement("label");
    const menu = document.createElement("select");
    menu.dataset.column = column;
    const name = headings[column].textContent;
    menu.append(new Option(`every ${name}`, ""));
    const values = [...new Set(rows.map((row) => text(row, column)))].sort(compare);
    values.forEach((value) => menu.append(new Option(value, value)));
    menu.addEventListener("change", narrow);
    label.append(`${name} `, menu, " ");
    menus.append(label);
  }
  menus.append(count);
  table.parentElement.before(menus);
  narrow();
}
