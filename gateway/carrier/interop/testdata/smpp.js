// node-smpp at the other end of a link: `smpp.js MODULES listen` is an SMSC, `smpp.js MODULES connect PORT` a gateway
// that binds. Orders come as lines of JSON, events go out in the same way.
'use strict';
const { createRequire } = require('module');
const path = require('path');
const [modules, mode, port] = process.argv.slice(2);
const bring = createRequire(path.resolve(modules) + '/');
const smpp = bring('smpp');

const tell = (event, rest) => process.stdout.write(JSON.stringify({ event, ...rest }) + '\n');
tell('hello', { version: bring('smpp/package.json').version });

const RECEIPT = 0x04, CLASS = 0x3c;
const long = new Map(); // parts of long texts that wait for the others
let session; // the one by which requests of ours go
let nextID = 4000000000; // beyond 31 bits
let nextReference = 7;

// place says which part of which text a PDU is.
function place(pdu) {
  if (pdu.sar_total_segments) {
    return { reference: pdu.sar_msg_ref_num, count: pdu.sar_total_segments, number: pdu.sar_segment_seqnum };
  }
  for (const element of (pdu.short_message && pdu.short_message.udh) || []) {
    if (element[0] === 0) return { reference: element[2], count: element[3], number: element[4] };
    if (element[0] === 8) return { reference: element.readUInt16BE(2), count: element[4], number: element[5] };
  }
  return { reference: 0, count: 1, number: 1 };
}

const octetsToText = (body) => (body && body.message !== undefined ? String(body.message) : '');

function words(pdu) {
  const short = octetsToText(pdu.short_message);
  return short !== '' ? short : octetsToText(pdu.message_payload);
}

function takeText(pdu) {
  const at = place(pdu);
  const key = [pdu.source_addr, pdu.destination_addr, at.reference, at.count].join('/');
  const parts = long.get(key) || new Map();
  parts.set(at.number, words(pdu));
  long.set(key, parts);
  if (parts.size < at.count) return;
  long.delete(key);
  const text = [...parts.keys()].sort((a, b) => a - b).map((n) => parts.get(n)).join('');
  tell('text', { from: pdu.source_addr, to: pdu.destination_addr, text, parts: at.count });
}

const date = (d) => d.toISOString().slice(2, 16).replace(/[-T:]/g, '');

// sendReceipt names a message in hexadecimal that was accepted in decimal.
function sendReceipt(pdu, id) {
  const hex = id.toString(16).toUpperCase();
  const now = date(new Date());
  send('deliver_sm', {
    source_addr_ton: 1, source_addr_npi: 1, source_addr: pdu.destination_addr, destination_addr: pdu.source_addr,
    esm_class: RECEIPT, data_coding: 0,
    short_message: `id:${hex} sub:001 dlvrd:001 submit date:${now} done date:${now} stat:DELIVRD err:000 text:`,
    receipted_message_id: hex, message_state: 2,
  });
}

function takeMessage(from, pdu) {
  if ((pdu.esm_class & CLASS) === RECEIPT) {
    const text = words(pdu);
    from.send(pdu.response());
    tell('receipt', { id: (/id:(\S+)/.exec(text) || [])[1], state: (/stat:(\S+)/.exec(text) || [])[1] });
    return;
  }
  const id = nextID++;
  from.send(pdu.response(pdu.command === 'submit_sm' ? { message_id: String(id) } : {}));
  if (pdu.ussd_service_op !== undefined) {
    tell('ussd', {
      op: pdu.ussd_service_op, from: pdu.source_addr, to: pdu.destination_addr, text: words(pdu),
      info: pdu.its_session_info ? pdu.its_session_info.toString('hex') : '',
    });
    return;
  }
  takeText(pdu);
  if (pdu.command === 'submit_sm' && pdu.registered_delivery & 1) sendReceipt(pdu, id);
}

function send(command, fields) {
  session[command](fields, (answer) => tell('answered', {
    command, status: answer.command_status, id: answer.message_id || '', state: String(answer.message_state || ''),
  }));
}

// cut makes pieces of at most so many UTF-16 units, none of which ends within a pair.
function cut(text, units) {
  const pieces = [];
  let piece = '';
  for (const character of text) {
    if (piece.length + character.length > units) { pieces.push(piece); piece = ''; }
    piece += character;
  }
  return [...pieces, piece];
}

function sendText({ from, to, text, method }) {
  const command = mode === 'listen' ? 'deliver_sm' : 'submit_sm';
  const unicode = /[^\x20-\x7e€]/.test(text);
  const fields = () => ({
    source_addr_ton: 1, source_addr_npi: 1, source_addr: from, dest_addr_ton: 3, destination_addr: to,
    data_coding: unicode ? 8 : 0,
  });
  if (method === 'plain') return send(command, { ...fields(), short_message: text });
  if (method === 'payload') return send(command, { ...fields(), short_message: '', message_payload: text });
  const reference = nextReference++;
  const pieces = cut(text, 66);
  pieces.forEach((piece, i) => {
    const at = [pieces.length, i + 1];
    if (method === 'sar') {
      return send(command, {
        ...fields(), short_message: piece,
        sar_msg_ref_num: reference, sar_total_segments: at[0], sar_segment_seqnum: at[1],
      });
    }
    const udh = method === 'udh8' ? [5, 0, 3, reference, ...at] : [6, 8, 4, reference >> 8, reference & 255, ...at];
    send(command, { ...fields(), esm_class: 0x40, short_message: { udh: Buffer.from(udh), message: piece } });
  });
}

function dial({ from, to, text, op, session: number }) {
  send(mode === 'listen' ? 'deliver_sm' : 'submit_sm', {
    service_type: 'USSD', source_addr_ton: 1, source_addr_npi: 1, source_addr: from, destination_addr: to,
    data_coding: 0, short_message: text || to, ussd_service_op: op,
    its_session_info: Buffer.from([number, 0]),
  });
}

function attach(s, as) {
  if (as !== 'transmitter') session = s;
  s.on('submit_sm', (pdu) => takeMessage(s, pdu));
  s.on('deliver_sm', (pdu) => takeMessage(s, pdu));
  s.on('enquire_link', (pdu) => { s.send(pdu.response()); tell('enquired'); });
  s.on('unbind', (pdu) => { s.send(pdu.response()); tell('unbound'); s.close(); });
  s.on('close', () => tell('closed'));
  s.on('error', (e) => tell('error', { text: String(e) }));
}

function obey(line) {
  const order = JSON.parse(line);
  switch (order.do) {
    case 'text': return sendText(order);
    case 'dial': return dial(order);
    case 'query': return send('query_sm', { message_id: order.id });
    case 'enquire': return send('enquire_link', {});
    case 'unbind': return session.unbind(() => { tell('answered', { command: 'unbind', status: 0 }); session.close(); });
  }
}

if (mode === 'listen') {
  const server = smpp.createServer((s) => {
    for (const as of ['transceiver', 'transmitter', 'receiver']) {
      s.on('bind_' + as, (pdu) => {
        const known = pdu.system_id === 'school' && pdu.password === 'secret';
        const status = known ? 0 : smpp.ESME_RINVPASWD;
        s.send(pdu.response({ command_status: status, system_id: 'node', sc_interface_version: 0x34 }));
        attach(s, as);
        tell('bound', { as, status });
      });
    }
    s.on('error', (e) => tell('error', { text: String(e) }));
  });
  server.listen(0, '127.0.0.1', () => tell('listening', { port: server.address().port }));
} else {
  const s = smpp.connect({ host: '127.0.0.1', port: Number(port) }, () => {
    s.bind_transceiver({ system_id: 'gate', password: 'secret', interface_version: 0x34 }, (answer) => {
      tell('bound', { as: 'transceiver', status: answer.command_status });
    });
  });
  attach(s, 'transceiver');
}

require('readline').createInterface({ input: process.stdin }).on('line', obey).on('close', () => process.exit(0));
