// Tables that can be sorted, filtered and turned page by page; a row can be opened.

const PAGE_ROWS = 25;

class Table {
  // `columns`: each a heading, a cell (text or node) of an item, the value to sort by (null last),
  // and whether it is a number. `details` makes what an opened row shows.
  constructor({ id, label, items, columns, sort, filterText, details, more }) {
    Object.assign(this, { id, label, items, columns, filterText, details });
    this.sort = columns.some((column) => column.key === sort.key) ? sort : { key: columns[0].key, up: true };
    this.page = 0;
    this.opened = new Set();
    this.filter = "";
    this.status = el("p", { class: "status", role: "status" });
    const search = el("input", {
      type: "search",
      id: `${id}-filter`,
      placeholder: "part of a name",
      autocomplete: "off",
      spellcheck: "false",
      on: {
        input: (event) => {
          this.filter = event.target.value.toLowerCase();
          this.page = 0;
          this.draw();
        },
      },
    });
    this.head = el("tr");
    this.body = el("tbody");
    this.previous = el("button", { type: "button", on: { click: () => this.turn(-1) } }, "‹ previous");
    this.next = el("button", { type: "button", on: { click: () => this.turn(1) } }, "next ›");
    this.pager = el("div", { class: "pager" }, this.previous, this.next);
    this.element = el(
      "div",
      { class: "table" },
      el(
        "div",
        { class: "tools" },
        el("label", { for: `${id}-filter` }, "Filter"),
        search,
        ...(more || []),
        this.status,
      ),
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
        el("table", {}, el("thead", {}, this.head), this.body),
      ),
      this.pager,
    );
    this.draw();
  }

  setColumns(columns) {
    this.columns = columns;
    if (!columns.some((column) => column.key === this.sort.key)) this.sort = { key: columns[0].key, up: true };
    this.draw();
  }

  turn(by) {
    this.page += by;
    this.draw();
    this.element.scrollIntoView({ block: "start" });
  }

  sortBy(column) {
    // The first time the way that tells more: names from A on, numbers from the largest.
    const first = !column.number;
    this.sort = { key: column.key, up: this.sort.key === column.key ? !this.sort.up : first };
    this.page = 0;
    this.draw();
    this.head.querySelector(`[data-key="${column.key}"]`).focus();
  }

  found() {
    const found = this.filter
      ? this.items.filter((item) => this.filterText(item).includes(this.filter))
      : this.items.slice();
    const column = this.columns.find((candidate) => candidate.key === this.sort.key);
    const by = this.sort.up ? 1 : -1;
    const keyed = found.map((item) => [column.value(item), item]);
    keyed.sort(([a], [b]) => {
      if (a === b) return 0;
      if (a === null) return 1;
      if (b === null) return -1;
      return a < b ? -by : by;
    });
    return keyed.map(([, item]) => item);
  }

  draw() {
    this.head.replaceChildren(...this.columns.map((column) => this.heading(column)));
    const found = this.found();
    const pages = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
    this.page = Math.min(this.page, pages - 1);
    const from = this.page * PAGE_ROWS;
    const shown = found.slice(from, from + PAGE_ROWS);
    this.body.replaceChildren(...shown.flatMap((item) => this.row(item)));
    const all = count(this.items.length);
    const of = found.length === this.items.length ? all : `${count(found.length)} found of ${all}`;
    this.status.textContent =
      pages > 1 ? `${count(from + 1)} to ${count(from + shown.length)} of ${of}` : of;
    this.pager.hidden = pages < 2;
    this.previous.disabled = this.page === 0;
    this.next.disabled = this.page === pages - 1;
  }

  heading(column) {
    const sorted = this.sort.key === column.key;
    const arrow = sorted ? (this.sort.up ? " ▲" : " ▼") : "";
    const button = el(
      "button",
      { type: "button", "data-key": column.key, title: column.title, on: { click: () => this.sortBy(column) } },
      column.heading,
      el("span", { "aria-hidden": "true" }, arrow),
    );
    return el(
      "th",
      {
        scope: "col",
        class: column.number ? "n" : "",
        "aria-sort": sorted ? (this.sort.up ? "ascending" : "descending") : null,
      },
      button,
    );
  }

  row(item) {
    const open = this.opened.has(item);
    const cells = this.columns.map((column, index) => {
      const cell = column.cell(item);
      if (index === 0) {
        const button = el(
          "button",
          {
            type: "button",
            class: "open",
            "aria-expanded": String(open),
            on: {
              click: () => {
                if (!this.opened.delete(item)) this.opened.add(item);
                const place = Array.from(this.body.querySelectorAll("button.open")).indexOf(button);
                this.draw();
                this.body.querySelectorAll("button.open")[place].focus({ preventScroll: true });
              },
            },
          },
          el("span", { class: "mark", "aria-hidden": "true" }, open ? "▾" : "▸"),
          cell,
        );
        return el("th", { scope: "row" }, button);
      }
      const nothing = cell === "–";
      return el(
        "td",
        {
          class: `${column.number ? "n" : ""}${nothing ? " null" : cell === "0" ? " zero" : ""}`,
          title: nothing ? column.whyNull || "not measured" : null,
        },
        cell,
      );
    });
    const row = el("tr", { class: open ? "opened" : "" }, ...cells);
    if (!open) return [row];
    const details = el("td", { colspan: this.columns.length }, el("div", { class: "details" }, ...this.details(item)));
    return [row, el("tr", { class: "detail" }, details)];
  }
}

// A column for a measure of items that have a `sum`.
function measureColumn(measure) {
  const { heading, label } = data.measures[measure];
  return {
    key: `m${measure}`,
    heading,
    title: `sort by ${label}`,
    number: true,
    value: (item) => item.sum.get(measure),
    cell: (item) => item.sum.text(measure),
    whyNull: `${label}: not measured; the reason is listed under “What could not be measured”`,
  };
}

// A plain table of sums, one a line, each with its name.
function sumTable(heading, lines) {
  const measures = worthShowing(lines.map((line) => line.sum), Infinity);
  const head = measures.map((measure) => el("th", { scope: "col", class: "n" }, data.measures[measure].heading));
  const body = lines.map(({ name, sum }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, ...name),
      ...measures.map((measure) => {
        const text = sum.text(measure);
        return el("td", { class: `n${text === "0" ? " zero" : text === "–" ? " null" : ""}` }, text);
      }),
    ),
  );
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": heading },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, heading), ...head)),
      el("tbody", {}, ...body),
    ),
  );
}
