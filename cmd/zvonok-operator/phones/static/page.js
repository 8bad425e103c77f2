"use strict";

const texts = {
  en: {
    title: "the page of phones", schools: "Doors and tills", phones: "Phones", open: "Open", in: "In", out: "Out",
    buffet: "Bun 70", lunch: "Lunch 110", benefit: "Benefit 95", show: "phones", search: "Name or class", number: "Phone number",
    school: "School", door: "Door", till: "Till", dial: "Call", answer: "Send", reply: "Send", replyHint: "STOP, START…", nobody: "nobody leads",
    led: "led by", ok: "recorded", lost: "The connection is lost; it comes back by itself.", over: "the dialogue is over", hangup: "✕", line: "The call goes by",
    first: "menu", balance: "balance", visit: "last visit", meals: "meals", bySMS: "by SMS", latin: "in Latin letters",
    more: "and % more; search by name or class", empty: "Press “phones” beside a child, or tap its card: the phones of its parents appear here.", other: "Русский", bun: "Bun",
  },
  ru: {
    title: "страница телефонов", schools: "Двери и кассы", phones: "Телефоны", open: "Открыть", in: "Вход", out: "Выход",
    buffet: "Булочка 70", lunch: "Обед 110", benefit: "Льгота 95", show: "телефоны", search: "Имя или класс", number: "Номер телефона",
    school: "Организация", door: "Дверь", till: "Касса", dial: "Вызов", answer: "Ответить", reply: "Отправить", replyHint: "СТОП, СТАРТ…", nobody: "никто не ведёт",
    led: "ведёт", ok: "записано", lost: "Связь потеряна, восстановится сама.", over: "диалог окончен", hangup: "✕", line: "Вызов идёт через",
    first: "меню", balance: "баланс", visit: "визит", meals: "питание", bySMS: "всё по SMS", latin: "латиницей",
    more: "и ещё %; ищите по имени или классу", empty: "Нажмите «телефоны» у ребёнка или приложите его карту: здесь появятся телефоны родителей.", other: "English", bun: "Булочка",
  },
};
let language = navigator.language.startsWith("ru") ? "ru" : "en";
let state = { city: { schools: [], phones: [], code: "" }, inbox: {}, screens: {}, serial: 0 };
const open = new Map(); // number -> handset element
const $ = (id) => document.getElementById(id);
const t = (key) => texts[language][key];

function translate(root) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
}

async function post(path, body) {
  const response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const text = await response.text();
  let data = {};
  try { data = JSON.parse(text); } catch { data = { detail: text }; }
  return { ok: response.ok, data };
}

function school() { return state.city.schools[$("school").selectedIndex]; }

function fill(select, list, label) {
  select.replaceChildren(...list.map((item) => new Option(label(item))));
}

function showSchool() {
  const s = school();
  if (!s) return;
  fill($("door"), s.doors, (d) => d.name);
  fill($("till"), s.tills, (d) => d.name);
  showChildren();
}

const listed = 60; // children shown at once

function showChildren() {
  const s = school();
  const wanted = $("search").value.trim().toLowerCase();
  const found = s.children.filter((c) => (c.name + " " + c.group).toLowerCase().includes(wanted));
  const list = found.slice(0, listed);
  $("children").replaceChildren(...list.map((child) => childRow(s, child)));
  $("more").textContent = found.length > listed ? t("more").replace("%", found.length - listed) : "";
}

function childRow(s, child) {
  const row = $("child-template").content.firstElementChild.cloneNode(true);
  translate(row);
  row.dataset.card = child.card;
  row.querySelector(".name").textContent = child.name;
  row.querySelector(".group").textContent = child.group;
  const answer = row.querySelector(".answer");
  const companion = row.querySelector(".companion");
  if (child.companions && child.companions.length) {
    companion.hidden = false;
    companion.replaceChildren(new Option(t("nobody"), ""), ...child.companions.map((c) => new Option(`${t("led")} ${c}`, c)));
    companion.selectedIndex = 1;
  }
  const act = async (path, body) => {
    answer.textContent = "";
    const { ok, data } = await post(path, body);
    const rejected = (data.rejected || [])[0];
    answer.classList.toggle("bad", !ok || !!rejected);
    answer.textContent = !ok ? (data.detail || data.title || "?") : rejected ? rejected.message : t("ok");
  };
  const tap = (direction) => act("/tap", { device: $("door").value, card: child.card, direction, companion: companion.value });
  row.querySelector(".in").onclick = () => tap("in");
  row.querySelector(".out").onclick = () => tap("out");
  row.querySelector(".buffet").onclick = () => act("/sale", { device: $("till").value, card: child.card, kind: "buffet", item: t("bun"), total: "70.00" });
  row.querySelector(".lunch").onclick = () => act("/sale", { device: $("till").value, card: child.card, kind: "hot", meal: "lunch", total: "110.00" });
  row.querySelector(".benefit").onclick = () => act("/sale", { device: $("till").value, card: child.card, kind: "subsidised", meal: "breakfast", total: "95.00" });
  row.querySelector(".show").onclick = () => {
    const phones = child.phones.toReversed().map(openPhone); // each opens before the others
    if (phones.length) phones.at(-1).scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  row.querySelector(".sales").hidden = s.tills.length === 0;
  return row;
}

function openPhone(number) {
  if (open.has(number)) { $("handsets").prepend(open.get(number)); return open.get(number); }
  const phone = $("phone-template").content.firstElementChild.cloneNode(true);
  const owner = state.city.phones.find((p) => p.number === number);
  phone.dataset.number = number;
  phone.querySelector(".owner").textContent = owner ? owner.owner : "";
  phone.querySelector(".digits").textContent = number;
  phone.querySelector(".close").onclick = () => { open.delete(number); phone.remove(); };
  translate(phone);
  const text = phone.querySelector(".text");
  const way = () => phone.querySelector(".way").value;
  const tab = (name) => {
    phone.dataset.tab = name;
    text.value = name === "ussd" && dialogueOver(number) ? state.city.code : "";
    text.placeholder = name === "sms" ? t("replyHint") : "";
    keys(phone);
    showLast(phone);
  };
  phone.querySelector(".tab-sms").onclick = () => tab("sms");
  phone.querySelector(".tab-ussd").onclick = () => tab("ussd");
  const send = (what) => {
    text.value = "";
    return post(phone.dataset.tab === "sms" ? "/reply" : "/dial", { number, text: what, line: way() });
  };
  phone.querySelector(".keys").onsubmit = (event) => {
    event.preventDefault();
    if (text.value !== "") send(text.value);
  };
  phone.querySelector(".hangup").onclick = () => post("/hangup", { number, line: way() });
  phone.querySelector(".line").hidden = !state.city.http;
  phone.querySelector(".way").onchange = () => { if (!dialogueOver(number)) post("/hangup", { number, line: way() === "http" ? "smpp" : "http" }); };
  phone.querySelector(".codes").replaceChildren(...shortcuts().map(([code, what]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = code;
    button.textContent = what;
    button.onclick = () => send(code);
    return button;
  }));
  phone.querySelector(".pad").replaceChildren(...[..."123456789*0#"].map((key) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = key;
    button.onclick = () => {
      if (text.value === state.city.code) text.value = "";
      text.value += key;
    };
    return button;
  }));
  tab("sms");
  phone.querySelector(".messages").replaceChildren(...(state.inbox[number] || []).map(messageLine).reverse());
  phone.querySelector(".screens").replaceChildren(...(state.screens[number] || []).map(screenLine));
  count(phone);
  open.set(number, phone);
  $("handsets").prepend(phone);
  return phone;
}

// shortcuts are what a person would dial, with what it shows.
function shortcuts() {
  const begin = state.city.code.replace(/#$/, "");
  return [
    [state.city.code, t("first")], [begin + "*1#", t("balance")], [begin + "*2#", t("visit")], [begin + "*3#", t("meals")],
    [begin + "*4#", t("bySMS")], ["#" + state.city.code.replace(/^\*/, ""), t("latin")],
  ];
}

// keys shows what the phone's buttons do now.
function keys(phone) {
  const ussd = phone.dataset.tab === "ussd";
  const over = dialogueOver(phone.dataset.number);
  phone.querySelector(".send").textContent = !ussd ? t("reply") : over ? t("dial") : t("answer");
  phone.querySelector(".hangup").hidden = !ussd || over;
}

function showLast(phone) {
  const glass = phone.querySelector(".glass");
  glass.scrollTop = phone.dataset.tab === "ussd" ? glass.scrollHeight : 0;
}

function dialogueOver(number) {
  const last = (state.screens[number] || []).at(-1);
  return !last || last.end;
}

function line(text, at) {
  const item = document.createElement("li");
  item.textContent = text;
  const time = document.createElement("time");
  time.textContent = new Date(at).toLocaleTimeString(language);
  item.append(time);
  return item;
}

function messageLine(message) {
  const item = line(message.text, message.at);
  const from = document.createElement("span");
  from.className = "from";
  from.textContent = message.from;
  item.prepend(from);
  return item;
}

function screenLine(screen) {
  const item = line(screen.text, screen.at);
  item.classList.toggle("mine", screen.mine);
  item.classList.toggle("end", screen.end);
  item.dataset.end = t("over");
  if (screen.note) item.querySelector("time").textContent += " · " + screen.note;
  return item;
}

function count(phone) {
  phone.querySelector(".count").textContent = phone.querySelector(".messages").childElementCount || "";
}

function onSMS({ number, message }) {
  (state.inbox[number] ||= []).push(message);
  if (!open.has(number)) { openPhone(number); return; }
  const phone = open.get(number);
  phone.querySelector(".messages").prepend(messageLine(message));
  count(phone);
}

function onUSSD({ number, screen }) {
  (state.screens[number] ||= []).push(screen);
  const phone = open.get(number);
  if (!phone) { openPhone(number); return; }
  phone.querySelector(".screens").append(screenLine(screen));
  if (phone.dataset.tab !== "ussd") return;
  keys(phone);
  showLast(phone);
}

// Events that come while the state is being loaded wait for it; those that it
// already holds are dropped by their serial number.
let loading = false;
let waiting = [];

function hear(event, handler) {
  const data = JSON.parse(event.data);
  if (loading) { waiting.push([data, handler]); return; }
  if (data.serial > state.serial) handler(data);
}

async function load() {
  loading = true;
  state = await (await fetch("/state")).json();
  loading = false;
  const chosen = $("school").selectedIndex;
  fill($("school"), state.city.schools, (s) => s.name);
  if (chosen > 0) $("school").selectedIndex = chosen;
  $("numbers").replaceChildren(...state.city.phones.map((p) => new Option(p.owner, p.number)));
  showSchool();
  for (const number of [...open.keys()]) { open.get(number).remove(); open.delete(number); openPhone(number); }
  for (const [data, handler] of waiting) if (data.serial > state.serial) handler(data);
  waiting = [];
}

function listen() {
  const events = new EventSource("/events");
  events.onopen = async () => { $("notice").textContent = ""; await load(); document.body.dataset.ready = "yes"; };
  events.onerror = () => { $("notice").textContent = t("lost"); };
  events.addEventListener("sms", (event) => hear(event, onSMS));
  events.addEventListener("ussd", (event) => hear(event, onUSSD));
}

function words() {
  document.documentElement.lang = language;
  translate(document);
  $("language").textContent = t("other");
  if (school()) showSchool();
  for (const number of [...open.keys()]) { open.get(number).remove(); open.delete(number); openPhone(number); }
}

$("school").onchange = showSchool;
$("search").oninput = showChildren;
$("opener").onsubmit = (event) => {
  event.preventDefault();
  const number = $("number").value.replace(/[^+0-9]/g, "");
  if (number) openPhone(number);
};
$("language").onclick = () => { language = language === "ru" ? "en" : "ru"; words(); };
words();
listen();
