"use strict";

const texts = {
  en: {
    title: "the page of phones", schools: "Doors and tills", phones: "Phones", open: "Open phone", in: "Tap in", out: "Tap out",
    buffet: "Buffet 70.00", lunch: "Lunch 110.00", show: "Phones", search: "Name or class", number: "Phone number",
    dial: "Dial", answer: "Send", reply: "Reply by SMS", nobody: "alone", ok: "recorded", lost: "The connection is lost; it comes back by itself.",
    other: "Русский", bun: "Bun",
  },
  ru: {
    title: "страница телефонов", schools: "Двери и кассы", phones: "Телефоны", open: "Открыть", in: "Вход", out: "Выход",
    buffet: "Буфет 70,00", lunch: "Обед 110,00", show: "Телефоны", search: "Имя или класс", number: "Номер телефона",
    dial: "Вызов", answer: "Ответить", reply: "Ответить по SMS", nobody: "без сопровождения", ok: "записано", lost: "Связь потеряна, восстановится сама.",
    other: "English", bun: "Булочка",
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

function showChildren() {
  const s = school();
  const wanted = $("search").value.trim().toLowerCase();
  const list = s.children.filter((c) => (c.name + " " + c.group).toLowerCase().includes(wanted)).slice(0, 60);
  $("children").replaceChildren(...list.map((child) => childRow(s, child)));
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
    companion.replaceChildren(new Option(t("nobody"), ""), ...child.companions.map((c) => new Option(c, c)));
    companion.selectedIndex = 1;
  }
  const act = async (path, body) => {
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
  row.querySelector(".show").onclick = () => child.phones.forEach(openPhone);
  for (const button of row.querySelectorAll(".buffet, .lunch")) button.hidden = s.tills.length === 0;
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
  const tab = (name) => {
    phone.dataset.tab = name;
    phone.querySelector(".send").textContent = name === "sms" ? t("reply") : t("dial");
    phone.querySelector(".text").value = name === "ussd" && dialogueOver(number) ? state.city.code : "";
  };
  phone.querySelector(".tab-sms").onclick = () => tab("sms");
  phone.querySelector(".tab-ussd").onclick = () => tab("ussd");
  phone.querySelector(".keys").onsubmit = async (event) => {
    event.preventDefault();
    const text = phone.querySelector(".text").value;
    phone.querySelector(".text").value = "";
    await post(phone.dataset.tab === "sms" ? "/reply" : "/dial", { number, text });
  };
  tab("sms");
  phone.querySelector(".messages").replaceChildren(...(state.inbox[number] || []).map(messageLine).reverse());
  phone.querySelector(".screens").replaceChildren(...(state.screens[number] || []).map(screenLine));
  count(phone);
  open.set(number, phone);
  $("handsets").prepend(phone);
  return phone;
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

function messageLine(message) { return line(message.text, message.at); }

function screenLine(screen) {
  const item = line(screen.text, screen.at);
  item.classList.toggle("mine", screen.mine);
  item.classList.toggle("end", screen.end);
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
  phone.querySelector(".glass").scrollTop = phone.querySelector(".glass").scrollHeight;
  if (phone.dataset.tab === "ussd") phone.querySelector(".send").textContent = screen.end ? t("dial") : t("answer");
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
  $("search").placeholder = t("search");
  $("number").placeholder = t("number");
  if (school()) showSchool();
}

$("school").onchange = showSchool;
$("search").oninput = showChildren;
$("open").onclick = () => { const number = $("number").value.trim(); if (number) openPhone(number); };
$("language").onclick = () => { language = language === "ru" ? "en" : "ru"; words(); };
words();
listen();
