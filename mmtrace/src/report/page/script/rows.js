// The rows of the recording, and sums of them.

const data = JSON.parse(document.getElementById("data").textContent);
const known = data.known.map((measures) => new Set(measures));

const rows = data.rows.map(([process, file, path, ...pairs]) => ({
  process: process - 1,
  file: file - 1,
  path,
  pairs,
}));

// A sum of rows: null when nothing of it is known, and a lower bound when only a part is.
class Sum {
  constructor() {
    this.values = new Array(data.measures.length).fill(0);
    this.paths = new Set();
  }

  add(row) {
    this.paths.add(row.path);
    for (let i = 0; i < row.pairs.length; i += 2) this.values[row.pairs[i]] += row.pairs[i + 1];
  }

  get(measure) {
    // Without rows there was no work, on any path.
    if (this.paths.size === 0) return known.some((measures) => measures.has(measure)) ? 0 : null;
    for (const path of this.paths) if (known[path].has(measure)) return this.values[measure];
    return null;
  }

  isBound(measure) {
    for (const path of this.paths) if (!known[path].has(measure)) return true;
    return false;
  }

  text(measure) {
    const value = this.get(measure);
    if (value === null) return "–";
    const text = amount(value, data.measures[measure].unit);
    return this.isBound(measure) ? `≥${text}` : text;
  }
}

// Sums of the rows that `key` puts together; rows with the key -1 too.
function sums(list, key) {
  const found = new Map();
  for (const row of list) {
    const of = key(row);
    if (!found.has(of)) found.set(of, new Sum());
    found.get(of).add(row);
  }
  return found;
}

// The measures that have anything to show in these sums, in the order of the columns; at most
// `most`, the most telling.
function worthShowing(list, most) {
  const shown = data.telling.filter((measure) => {
    const values = list.map((sum) => sum.get(measure));
    return (
      values.some((value) => value > 0) ||
      (data.measures[measure].expected && values.every((value) => value === null))
    );
  });
  return shown.slice(0, most).sort((a, b) => a - b);
}
