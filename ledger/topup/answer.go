package topup

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strconv"
	"time"

	"zvonok/ledger/money"
)

// answer is what a partner is told, before it gets the shape of a protocol.
type answer struct {
	outcome Outcome
	// comment replaces the outcome's own; "-" means none.
	comment string
	txn     string
	// prv is our number of the payment; 0 for none.
	prv int64
	sum money.Amount
	// bookedAt is when we booked it.
	bookedAt time.Time
	// found is set by a good check.
	found *found
	// receipt is what a terminal may print of a payment.
	receipt []field
}

// found is what a good check tells.
type found struct {
	name      string
	balance   money.Amount
	recommend money.Amount
	payee     string
}

// field is one thing to show (disp) or to print (prt-data).
type field struct{ name, kind, text string }

// xmlHeader begins every answer.
const xmlHeader = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

// noComment stands for an empty comment.
const noComment = "-"

// render writes the answer in the shape of a protocol. Equal answers are equal bytes.
func (p *Partner) render(of protocol, a answer) []byte {
	var b bytes.Buffer
	b.WriteString(xmlHeader)
	b.WriteString("<response>")
	code := strconv.Itoa(p.table.code(p.Dialect, a.outcome))
	comment := a.comment
	switch comment {
	case "":
		comment = p.table[a.outcome].comment
	case noComment:
		comment = ""
	}
	switch of {
	case sberProtocol1:
		element(&b, "CODE", code)
		element(&b, "MESSAGE", comment)
		if a.found != nil {
			element(&b, "FIO", a.found.name)
			element(&b, "BALANCE", a.found.balance.String())
			element(&b, "REC_SUM", a.found.recommend.String())
			element(&b, "INFO", "school meals")
		}
		if a.prv != 0 {
			element(&b, "EXT_ID", strconv.FormatInt(a.prv, 10))
			element(&b, "REG_DATE", a.bookedAt.In(p.zone).Format(sberTime))
			element(&b, "AMOUNT", a.sum.String())
		}
	case sberProtocol2:
		element(&b, "result", code)
		element(&b, "comment", comment)
		if a.found != nil {
			element(&b, "fio", a.found.name)
			element(&b, "balance", a.found.balance.String())
			element(&b, "info", "school meals")
		}
		if a.prv != 0 {
			element(&b, "ext_id", strconv.FormatInt(a.prv, 10))
			element(&b, "reg_date", a.bookedAt.In(p.zone).Format(sberTime))
			element(&b, "sum", a.sum.String())
		}
	default:
		element(&b, "osmp_txn_id", a.txn)
		if a.prv != 0 {
			element(&b, "prv_txn", strconv.FormatInt(a.prv, 10))
			element(&b, "sum", a.sum.String())
		}
		element(&b, "result", code)
		element(&b, "comment", comment)
		fields := a.receipt
		if a.found != nil {
			fields = []field{
				{"name", "disp", a.found.name}, {"balance", "disp", a.found.balance.String()}, {"payee", "prt-data", a.found.payee},
			}
		}
		if len(fields) > 0 {
			b.WriteString("<fields>")
			for i, f := range fields {
				fmt.Fprintf(&b, `<field%d name="%s" type="%s">`, i+1, f.name, f.kind)
				text(&b, f.text)
				fmt.Fprintf(&b, `</field%d>`, i+1)
			}
			b.WriteString("</fields>")
		}
	}
	b.WriteString("</response>\n")
	return b.Bytes()
}

func element(b *bytes.Buffer, name, value string) {
	if value == "" {
		fmt.Fprintf(b, "<%s/>", name)
		return
	}
	fmt.Fprintf(b, "<%s>", name)
	text(b, value)
	fmt.Fprintf(b, "</%s>", name)
}

func text(b *bytes.Buffer, value string) {
	xml.EscapeText(b, []byte(value)) // a Buffer takes everything
}

// payeeLine is how a payee is shown and printed (R35).
func payeeLine(name, inn string) string {
	if name == "" {
		return ""
	}
	return name + ", ИНН " + inn
}

// receiptOf is what a terminal prints of a payment (R39). It names no child.
func (p *Partner) receiptOf(account string, sum money.Amount, prv int64, at time.Time, payee string) []field {
	receipt := fmt.Sprintf("Школьное питание. Лицевой счёт %s. Принято %s руб. Операция %d от %s.",
		account, sum, prv, at.In(p.zone).Format("02.01.2006 15:04:05"))
	fields := []field{{"receipt", "prt-data", receipt}}
	if payee != "" {
		fields = append(fields, field{"payee", "prt-data", payee})
	}
	return fields
}
