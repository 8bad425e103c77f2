// mailparser reads the letter on standard input, `mail.js MODULES`, and tells what a person would see as JSON.
'use strict';
const { createRequire } = require('module');
const path = require('path');
const bring = createRequire(path.resolve(process.argv[2]) + '/');
const { simpleParser } = bring('mailparser');

simpleParser(process.stdin, { skipHtmlToText: true, skipTextToHtml: true }).then((mail) => {
  const list = mail.headers.get('list') || {};
  process.stdout.write(JSON.stringify({
    version: bring('mailparser/package.json').version,
    subject: mail.subject, text: mail.text, html: mail.html || '', date: mail.date.toISOString(),
    from: mail.from.value, to: mail.to.value,
    messageID: mail.messageId, references: [].concat(mail.references || []),
    unsubscribe: (list.unsubscribe || {}).url || '',
    oneClick: (list['unsubscribe-post'] || {}).name || '',
    autoSubmitted: mail.headers.get('auto-submitted') || '',
    headers: mail.headerLines.map((line) => line.key), attachments: mail.attachments.length,
  }));
});
