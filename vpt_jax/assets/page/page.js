"use strict";

const at = (selector, within = document) => within.querySelector(selector);
const cards = new Map();
let chosen = null; // the image that is shown, as it was given
let turn = 0; // answers to an earlier image come too late

const bytes = (n) => {
  const units = ["B", "KB", "MB", "GB"];
  let k = 0;
  for (; n >= 1000 && k < units.length - 1; k++) n /= 1000;
  return `${n >= 100 || k === 0 ? Math.round(n) : n.toFixed(1)} ${units[k]}`;
};

const percent = (x) => (x < 0.1 ? `${x.toFixed(2)} %` : `${x.toFixed(1)} %`);

function say(text, wrong = false) {
  const message = at("#message");
  message.textContent = text;
  message.classList.toggle("wrong", wrong);
}

async function answer(path, options) {
  const response = await fetch(path, options);
  const content = await response.json();
  if (!response.ok) throw new Error(content.error || response.statusText);
  return content;
}

function makeCard(name, about) {
  const card = at("#card").content.cloneNode(true).firstElementChild;
  at("h2", card).textContent = name;
  const facts = `${about.method} · ${bytes(about.tuned_bytes)} · ` +
    `${percent(about.tuned_percent)} tuned · ${about.classes.length} classes`;
  at(".facts", card).textContent = facts;
  if (about.test !== null && about.test !== undefined) {
    at(".score", card).textContent = `${about.metric} ${about.test.toFixed(1)} ${about.unit}`;
  }
  const empty = document.createElement("li");
  empty.className = "empty";
  empty.textContent = "Give it an image.";
  at(".classes", card).append(empty);
  at("details", card).addEventListener("toggle", (event) => {
    if (event.target.open) look(name);
  });
  cards.set(name, card);
  at("#tasks").append(card);
}

function fill(name, found) {
  const rows = found.map((one) => {
    const row = document.createElement("li");
    row.style.setProperty("--share", `${100 * one.probability}%`);
    for (const text of [one.class, percent(100 * one.probability)]) {
      const part = document.createElement("span");
      part.textContent = text;
      row.append(part);
    }
    return row;
  });
  at(".classes", cards.get(name)).replaceChildren(...rows);
}

async function classify(image) {
  const mine = ++turn;
  chosen = image;
  show(image);
  say("…");
  const started = performance.now();
  try {
    const found = await answer("api/classify", { method: "POST", body: image });
    if (mine !== turn) return;
    for (const [name, classes] of Object.entries(found)) if (cards.has(name)) fill(name, classes);
    const count = Object.keys(found).length;
    const took = Math.round(performance.now() - started);
    say(`${count} ${count === 1 ? "task" : "tasks"}, one pass, ${took} ms`);
    for (const [name, card] of cards) if (at("details", card).open) look(name);
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}

function show(image) {
  const shown = at("#image");
  URL.revokeObjectURL(shown.src);
  shown.src = URL.createObjectURL(image);
  shown.onload = () => shown.classList.toggle("small", shown.naturalWidth < 100);
  shown.hidden = false;
  at("#drop").classList.add("full");
}

async function look(name) {
  if (!chosen) return;
  const mine = turn;
  const card = cards.get(name);
  try {
    const found = await answer(`api/attention/${encodeURIComponent(name)}`,
      { method: "POST", body: chosen });
    if (mine !== turn) return;
    const image = new Image();
    image.src = found.image;
    await image.decode();
    const [plain, tuned] = card.querySelectorAll("canvas");
    light(plain, image, found.plain);
    light(tuned, image, found.tuned);
  } catch (error) {
    if (mine === turn) at("summary", card).textContent = error.message;
  }
}

// Bright where the class token looks, dark where it does not.
function light(canvas, image, weights) {
  const side = Math.round(Math.sqrt(weights.length));
  const size = 256;
  canvas.width = canvas.height = size;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = image.naturalWidth > 100;
  pen.drawImage(image, 0, 0, size, size);
  const low = Math.min(...weights);
  const high = Math.max(...weights);
  const veil = document.createElement("canvas");
  veil.width = veil.height = side;
  const pixels = new ImageData(side, side);
  weights.forEach((weight, k) => {
    pixels.data[4 * k + 3] = 255 * 0.85 * (1 - (weight - low) / Math.max(high - low, 1e-12));
  });
  veil.getContext("2d").putImageData(pixels, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.drawImage(veil, 0, 0, size, size);
}

async function showExamples(name) {
  const place = at("#examples");
  place.replaceChildren();
  let found;
  try {
    found = await answer(`api/examples/${encodeURIComponent(name)}`);
  } catch {
    return false; // its data are not here
  }
  found.labels.forEach((label, k) => {
    const button = document.createElement("button");
    button.title = label;
    const image = document.createElement("img");
    image.alt = label;
    image.src = `api/examples/${encodeURIComponent(name)}/${k}`;
    image.onload = () => image.classList.toggle("small", image.naturalWidth < 100);
    button.append(image);
    button.addEventListener("click", async () => {
      const file = await fetch(image.src);
      classify(await file.blob());
    });
    place.append(button);
  });
  return true;
}

async function start() {
  const { backbone, backbone_bytes: size, tasks } = await answer("api/tasks");
  const names = Object.keys(tasks);
  const tuned = names.reduce((sum, name) => sum + tasks[name].tuned_bytes, 0);
  at("#about").textContent = `${backbone}, ${bytes(size)}, in memory once · ` +
    `${names.length} tuned ${names.length === 1 ? "task" : "tasks"}, ${bytes(tuned)} together`;
  names.forEach((name) => makeCard(name, tasks[name]));
  const source = at("#source");
  const seen = new Set();
  for (const name of names) {
    if (seen.has(tasks[name].task)) continue;
    seen.add(tasks[name].task);
    source.add(new Option(tasks[name].task, name));
  }
  source.addEventListener("change", () => showExamples(source.value));
  for (const option of [...source.options]) {
    source.value = option.value;
    if (await showExamples(option.value)) {
      at("#shelf").hidden = false;
      break;
    }
    option.remove();
  }
}

function listen() {
  const drop = at("#drop");
  at("#file").addEventListener("change", (event) => {
    if (event.target.files.length) classify(event.target.files[0]);
  });
  drop.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") at("#file").click();
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", () => drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) classify(event.clipboardData.files[0]);
  });
}

listen();
start().catch((error) => say(error.message, true));
