// Making elements. Whatever comes from a recording becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children);
  return element;
}

function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function absent(text) {
  return el("p", { class: "absent" }, text);
}

// The end of a long name tells files apart, and begins at a directory where little is lost by that;
// the beginning tells commands apart.
function shortened(text, length, keepEnd) {
  if (text.length <= length) return text;
  const characters = Array.from(text);
  if (characters.length <= length) return text;
  if (keepEnd) {
    const tail = characters.slice(1 - length);
    const directory = tail.indexOf("/");
    return "…" + tail.slice(directory >= 0 && directory <= tail.length / 3 ? directory : 0).join("");
  }
  return characters.slice(0, length - 1).join("") + "…";
}

// What a field of a colour is called in the style sheet, as a value that a canvas takes.
function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function swatch(path) {
  return el("i", { class: `swatch p-${path}`, "aria-hidden": "true" });
}
