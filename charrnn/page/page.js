// The page: its worker holds the model, this script the texts and the controls.
"use strict";

const $ = (id) => document.getElementById(id);
const model = JSON.parse($("model").textContent);
const { vocabulary } = model;
const symbols = [...vocabulary.characters];
const idOf = new Map(symbols.map((character, id) => [character, id]));
const isBytes = vocabulary.kind === "bytes";

const element = (name, content = "", properties = {}) => {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = content;
  return made;
};

/** How a symbol is shown where it stands alone. */
function shown(id) {
  if (id === vocabulary.boundary) return "end of text";
  if (id === vocabulary.unknown) return "unknown";
  if (isBytes && id > 126) return `byte ${id}`;
  return (
    { " ": "space", "\n": "newline", "\t": "tab" }[symbols[id]] ??
    (symbols[id] < " " ? `U+${symbols[id].codePointAt(0).toString(16).padStart(4, "0")}` : symbols[id])
  );
}

/** The ids of a text; characters without one become the unknown symbol or, where there is none, are left out. */
function encoded(text) {
  const plain = text.replace(/\r\n?/g, "\n");
  if (isBytes) return Array.from(new TextEncoder().encode(plain));
  const ids = [];
  for (const character of plain) {
    const known = idOf.has(character) ? character : (vocabulary.equivalents[character] ?? character);
    for (const one of known) {
      const id = idOf.get(one) ?? vocabulary.unknown;
      if (id !== null) ids.push(id);
    }
  }
  return ids;
}

/** The text of ids, one string each; the bytes of a character stand with its last one. */
function decoded(ids) {
  if (!isBytes) return ids.map((id) => symbols[id] ?? (id === vocabulary.unknown ? "\ufffd" : ""));
  const decoder = new TextDecoder("utf-8");
  return ids.map((id) => (id < 256 ? decoder.decode(Uint8Array.of(id), { stream: true }) : ""));
}

// --- the worker ------------------------------------------------------------------------------------

const worker = new Worker(URL.createObjectURL(new Blob([$("worker-code").textContent], { type: "text/javascript" })));
let request = 0;
let isLoaded = false;
const answers = new Map(); // what to call with the messages of each type, for the latest request only

/** Sends a request, which ends the work for earlier ones; until the model is unpacked, only that one counts. */
function ask(type, data = {}, answer = () => {}) {
  if (!isLoaded && type !== "load") return;
  request += 1;
  $("stop").disabled = true;
  $("more").disabled = !isLoaded;
  answers.set(type, answer);
  worker.postMessage({ type, request, ...data });
}
worker.onmessage = ({ data }) => {
  if (data.request === request) answers.get(data.type)?.(data);
};

// --- play ------------------------------------------------------------------------------------------

let text = []; // the ids after those that every text starts with
let primed = 0; // how many of them the user gave
const earlier = []; // {ids, primed} of texts that were left

function showText() {
  const strings = decoded(text);
  $("written").replaceChildren(
    element("span", strings.slice(0, primed).join(""), { className: "prime" }),
    element("span", strings.slice(primed).join("")),
    element("span", "", { className: "cursor" }),
  );
}

/** A symbol and its probability, as a bar. */
function bar(name, id, probability) {
  const made = element(name, "", { className: "bar" });
  const share = `${(100 * probability).toFixed(1)} %`;
  made.append(element("kbd", shown(id)), element("span", share));
  made.style.setProperty("--share", probability);
  if (name === "button") Object.assign(made, { type: "button", ariaLabel: `${shown(id)}, ${share}` });
  return made;
}

function showExpected(list) {
  $("next").replaceChildren(
    ...list.map(([id, probability]) => {
      const item = document.createElement("li");
      const button = bar("button", id, probability);
      button.onclick = () => goOn([...text, id]);
      item.append(button);
      return item;
    }),
  );
}

function showEarlier() {
  $("earlier").replaceChildren(
    ...earlier.map((left, index) => {
      const item = document.createElement("li");
      const button = element("button", decoded(left.ids).join("").slice(-40) || "(empty)", { type: "button" });
      button.onclick = () => {
        earlier.splice(index, 1);
        keep();
        ({ ids: text, primed } = left);
        write(0);
      };
      item.append(button);
      return item;
    }),
  );
}

/** Keeps the present text among the earlier ones, unless the next text continues it. */
function keep(next = []) {
  const isTakenBack = next.length === text.length - 1 && next.every((id, place) => id === text[place]);
  const isContinued = text.every((id, place) => id === next[place]);
  if (text.length > primed && !isContinued && !isTakenBack) earlier.unshift({ ids: text, primed });
  showEarlier();
}

/** Replaces the text by another, and goes on from there. */
function goOn(ids) {
  keep(ids);
  text = ids;
  primed = Math.min(primed, ids.length);
  write(0);
}

/** Writes so many more characters. */
function write(length) {
  const seed = Number($("seed").value) + text.length - primed; // of the same text, "more" is not the same again
  const data = {
    ids: primed ? text : [...vocabulary.start, ...text],
    length,
    temperature: Number($("temperature").value),
    topP: Number($("top-p").value),
    seed,
  };
  const began = performance.now();
  let count = 0;
  showText();
  if ($("look-status").textContent.startsWith("reading")) $("look-status").textContent = "";
  ask("write", data, (answer) => {
    text = [...text, ...answer.ids];
    count += answer.ids.length;
    if (answer.ids.length) showText();
    showExpected(answer.expected);
    const speed = (1000 * count) / (performance.now() - began);
    $("play-status").textContent =
      `${text.length.toLocaleString("en")} characters${count ? `, ${Math.round(speed).toLocaleString("en")} a second` : ""}`;
    if (answer.isDone) {
      $("stop").disabled = true;
      $("more").disabled = false;
    }
  });
  $("stop").disabled = !length;
  $("more").disabled = true;
}

$("settings").onsubmit = (event) => {
  event.preventDefault();
  keep();
  text = encoded($("prime").value);
  primed = text.length;
  write(Number($("length").value));
};
$("more").onclick = () => $("settings").reportValidity() && write(Number($("length").value));
$("stop").onclick = () => goOn(text);

/** The number of ids before the place in the text at which an event happened. */
function placeOf(event) {
  const position = document.caretPositionFromPoint?.(event.clientX, event.clientY);
  const range = position ? null : document.caretRangeFromPoint?.(event.clientX, event.clientY);
  const node = position?.offsetNode ?? range?.startContainer;
  if (!node || !$("written").contains(node)) return null;
  const before = document.createRange();
  before.setStart($("written"), 0);
  before.setEnd(node, position?.offset ?? range.startOffset);
  let left = before.toString().length;
  return decoded(text).findIndex((string) => {
    left -= string.length;
    return left < 0;
  });
}
$("written").onclick = (event) => {
  const place = placeOf(event);
  if (place !== null && place >= 0 && getSelection().isCollapsed) goOn(text.slice(0, place));
};
$("written").onkeydown = (event) => {
  if (event.key === "Backspace" && text.length) {
    event.preventDefault();
    goOn(text.slice(0, -1));
  } else if (event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    goOn([...text, ...encoded(event.key)]);
  } else if (event.key === "Enter") {
    event.preventDefault();
    goOn([...text, ...encoded("\n")]);
  }
};

// --- look ------------------------------------------------------------------------------------------

let look = null; // {ids, strings, nats, tops, shares, memories} of the text that was read
let active = -1; // the character whose place is shown

function levelOf(place) {
  if ($("colour").value === "surprise") return `s${Math.min(6, Math.floor(look.nats[place]))}`;
  const row = (Number($("layer").value) - 1) * model.sizes.units + Number($("cell").value) - 1;
  const level = Math.round((4 * look.memories[row * look.ids.length + place]) / 97); // tanh(1) is 97 of 127
  return `c${Math.max(-4, Math.min(4, level)) + 4}`;
}

function paint() {
  if (!look) return;
  const isCell = $("colour").value === "cell";
  const names = isCell ? ["-1", "c0", "c2", "c4", "c6", "c8", "1"] : ["nats", "s1", "s2", "s3", "s4", "s5", "s6"];
  $("legend").replaceChildren(
    ...names.map((name) =>
      /^[cs]\d$/.test(name)
        ? element("span", isCell ? "\u2003" : ` ${name[1]}${name === "s6" ? "+" : ""} `, { className: name })
        : element("span", ` ${name} `),
    ),
  );
  const spans = look.strings.map((string, place) =>
    element("span", string === "\n" ? "\u21b5\n" : string, { className: levelOf(place) }),
  );
  $("painted").replaceChildren(...spans);
  show(Math.max(0, active));
}

function show(place) {
  if (!look || !look.ids.length) return;
  $("painted").children[active]?.classList.remove("active");
  active = Math.max(0, Math.min(place, look.ids.length - 1));
  $("painted").children[active].classList.add("active");
  $("place-title").textContent = `${shown(look.ids[active])}: ${look.nats[active].toFixed(2)} nats. Expected here:`;
  const count = look.tops.length / look.ids.length;
  $("place").replaceChildren(
    ...Array.from({ length: count }, (_, n) => {
      const at = active * count + n;
      return bar("li", look.tops[at], look.shares[at]);
    }),
  );
}

function read() {
  const ids = encoded($("source").value).slice(0, model.most);
  if (!ids.length) {
    $("look-status").textContent = "There is no text to read.";
    return;
  }
  answers.set("progress", ({ done }) => {
    $("look-status").textContent = `reading: ${Math.round(100 * done)} %`;
  });
  ask("look", { start: vocabulary.start, ids }, (answer) => {
    look = { ...answer, ids, strings: decoded(ids) };
    const mean = answer.nats.reduce((a, b) => a + b) / ids.length;
    $("look-status").textContent =
      `${ids.length.toLocaleString("en")} characters, ${mean.toFixed(3)} nats per character`;
    active = -1;
    paint();
  });
}

$("reading").onsubmit = (event) => {
  event.preventDefault();
  read();
};
$("file").onchange = async () => {
  const [file] = $("file").files;
  if (file) $("source").value = (await file.slice(0, 4 * model.most).text()).slice(0, model.most);
  if (file) read();
};
for (const id of ["colour", "layer", "cell"]) $(id).oninput = () => $(id).reportValidity() && paint();
$("painted").onmouseover = ({ target }) => {
  if (target.parentNode === $("painted")) show([...$("painted").children].indexOf(target));
};
$("painted").onclick = $("painted").onmouseover;
$("painted").onkeydown = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -Infinity, End: Infinity }[event.key];
  if (!step) return;
  event.preventDefault();
  show(active + step);
  $("painted").children[active].scrollIntoView({ block: "nearest" });
};

// --- found, and the run ----------------------------------------------------------------------------

function showFound() {
  $("found-note").textContent = model.found.length
    ? "These cells keep track of something. Each was chosen on one half of a text and measured on the other half; an untrained network of this shape has none like it. Choose one to colour the text above by it."
    : "No cell of this network keeps track of anything that charrnn looks for, beyond what a cell of an untrained network does.";
  $("neurons").replaceChildren(
    ...model.found.map(({ feature, layer, cell, measure, figure }) => {
      const item = document.createElement("li");
      const button = element("button", `${feature}: layer ${layer}, cell ${cell}, ${measure} ${figure.toFixed(2)}`, {
        type: "button",
      });
      button.onclick = () => {
        $("colour").value = "cell";
        $("layer").value = layer;
        $("cell").value = cell;
        if (look) paint();
        else read();
        $("look").scrollIntoView();
        $("painted").focus({ preventScroll: true });
      };
      item.append(button);
      return item;
    }),
  );
}

/** A picture of the losses, as SVG. */
function showCurve() {
  $("curve").parentNode.hidden = !model.history.length;
  if (!model.history.length) return;
  const [width, height, left, bottom] = [640, 280, 40, 24];
  const steps = model.history.map(([step]) => step);
  const losses = model.history.flatMap(([, train, validation]) => [train, validation]);
  const [least, most] = [Math.min(...losses), Math.max(...losses)];
  const x = (step) => left + ((width - left - 8) * step) / Math.max(...steps);
  const y = (loss) => 8 + ((height - bottom - 16) * (most - loss)) / (most - least || 1);
  const make = (name, attributes, content = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = content;
    return made;
  };
  const picture = make("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `The validation loss ends at ${model.history.at(-1)[2].toFixed(3)} nats per character.`,
  });
  for (const loss of [least, (least + most) / 2, most]) {
    picture.append(make("line", { x1: left, x2: width - 8, y1: y(loss), y2: y(loss), class: "grid" }));
    picture.append(make("text", { x: left - 6, y: y(loss) + 4, "text-anchor": "end" }, loss.toFixed(2)));
  }
  picture.append(
    make(
      "text",
      { x: width - 8, y: height - 4, "text-anchor": "end" },
      `update ${Math.max(...steps).toLocaleString("en")}`,
    ),
  );
  for (const [column, name] of [
    [1, "train"],
    [2, "validation"],
  ]) {
    const points = model.history.map((row) => `${x(row[0]).toFixed(1)},${y(row[column]).toFixed(1)}`).join(" ");
    picture.append(make("polyline", { points, class: name }));
  }
  $("curve").append(picture);
}

$("summary").textContent = model.summary;
$("source").value = model.text;
$("layer").max = model.sizes.layers;
$("cell").max = model.sizes.units;
$("facts").append(...model.facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
showFound();
showCurve();
ask("load", { packed: model.packed, sizes: model.sizes, tensors: model.tensors, vocabulary }, () => {
  isLoaded = true;
  for (const id of ["write", "more", "read"]) $(id).disabled = false;
  text = encoded($("prime").value);
  primed = text.length;
  write(Number($("length").value));
});
