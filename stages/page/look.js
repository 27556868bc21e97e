"use strict";
// Language and colours. Texts that the page was written with stand in it in both languages, and a style hides one;
// this file says the others, and tells the rest of the page when to draw itself again.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const words = read("words");
const root = document.documentElement;
const changed = []; // what to call after a change of language or colours

function say(key, values = {}) {
  return words[key][root.dataset.language].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// An element with its attributes and children; a text child stays text, whatever is in it.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
const theme = document.getElementById("theme");

function look() {
  root.lang = root.dataset.language;
  document.title = say("page.title");
  theme.textContent = say(isDark() ? "page.light" : "page.dark");
  for (const button of document.querySelectorAll("[data-speak]")) {
    button.setAttribute("aria-pressed", String(button.dataset.speak === root.dataset.language));
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
  }
  for (const again of changed) again();
}

for (const button of document.querySelectorAll("[data-speak]")) {
  button.addEventListener("click", () => {
    root.dataset.language = button.dataset.speak;
    look();
  });
}
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  look();
});
systemDark.addEventListener("change", look);
