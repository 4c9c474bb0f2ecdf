// Keeps the page up to date: asks for it again every few seconds and takes over what differs.
// The server draws everything, so there is nothing here that could tell another story than it.
"use strict";

const EVERY = 3000;       // ms between two looks while all is well
const SLOWEST = 30000;    // ms between two tries while the proxy does not answer
const PATIENCE = 8000;    // ms for one answer

const facts = document.getElementById("facts");
const link = document.getElementById("link");
const linkText = document.getElementById("link-text");
const news = document.getElementById("news");
const build = document.documentElement.dataset.build;

let timer = null;
let failures = 0;
let lostAt = null;        // the last time shown before the proxy went silent
let asking = false;

// --- taking over what differs

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "");
const isAlike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;

// Makes `held` like `wanted`. Nodes that stay keep focus and selection.
function takeOver(held, wanted) {
  if (held.nodeType !== Node.ELEMENT_NODE) {
    if (held.nodeValue !== wanted.nodeValue) held.nodeValue = wanted.nodeValue;
    return;
  }
  for (const { name } of [...held.attributes]) if (!wanted.hasAttribute(name)) held.removeAttribute(name);
  for (const { name, value } of wanted.attributes) if (held.getAttribute(name) !== value) held.setAttribute(name, value);
  takeOverChildren(held, wanted);
}

function takeOverChildren(held, wanted) {
  const keyed = new Map([...held.children].filter(keyOf).map((child) => [keyOf(child), child]));
  let place = held.firstChild;
  for (const child of wanted.childNodes) {
    const key = keyOf(child);
    const found = key ? keyed.get(key) : place;
    if (found && isAlike(found, child) && keyOf(found) === key) {
      if (found === place) place = place.nextSibling;
      else held.insertBefore(found, place);
      keyed.delete(key);
      takeOver(found, child);
    } else {
      held.insertBefore(document.importNode(child, true), place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

// --- saying what has changed

const watched = () => new Map([...facts.querySelectorAll("[data-watch]")].map((node) => [node.dataset.watch, node.dataset.state]));

function sayChanges(before) {
  const said = [];
  for (const node of facts.querySelectorAll("[data-watch]")) {
    const { watch, state } = node.dataset;
    if (before.has(watch) && before.get(watch) !== state) {
      said.push(`${watch} ${state}`);
      node.classList.add("changed"); // until the next look
    }
  }
  if (said.length) news.textContent = `${said.slice(0, 5).join(". ")}.`;
}

// --- the connection

function showLink(state, text) {
  link.dataset.link = state;
  linkText.textContent = text;
  document.body.classList.toggle("lost", state === "lost");
}

function connected() {
  if (lostAt !== null) news.textContent = "Connected again.";
  failures = 0;
  lostAt = null;
  showLink("live", `Live, ${facts.dataset.clock} UTC`);
}

function lost(why) {
  if (lostAt === null) {
    lostAt = facts.dataset.clock;
    news.textContent = `Connection lost: ${why}.`;
  }
  failures += 1;
  countDown(Date.now() + Math.min(EVERY * 2 ** (failures - 1), SLOWEST), why);
}

function countDown(until, why) {
  const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  const shown = `Connection lost: ${why}. Shown as of ${lostAt} UTC. Next try in ${seconds} s.`;
  if (seconds === 0) look();
  else {
    showLink("lost", shown);
    timer = setTimeout(countDown, 1000, until, why);
  }
}

async function look() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  try {
    take(await ask());
    connected();
    timer = setTimeout(look, EVERY);
  } catch (error) {
    lost(error.reason || "the proxy does not answer");
  } finally {
    asking = false;
  }
}

async function ask() {
  const headers = { Accept: "text/html" };
  const response = await fetch(location.pathname, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  const text = await response.text();
  if (!response.ok) throw Object.assign(new Error(), { reason: `the answer is ${response.status}` });
  const page = new DOMParser().parseFromString(text, "text/html");
  if (!page.getElementById("facts")) throw Object.assign(new Error(), { reason: "the answer is another page" });
  return page;
}

function take(page) {
  // Another version of the program has taken its place, with a script and a style of its own.
  if (page.documentElement.dataset.build !== build) {
    location.reload();
    return;
  }
  const before = watched();
  takeOver(facts, page.getElementById("facts"));
  document.title = page.title;
  sayChanges(before);
}

document.addEventListener("visibilitychange", look);
window.addEventListener("online", look);
showLink("live", `Live, ${facts.dataset.clock} UTC`);
timer = setTimeout(look, EVERY);
