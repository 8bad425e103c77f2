package topup

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

// protocol is the shape of a partner's questions and answers.
type protocol string

const (
	osmpProtocol protocol = "osmp"
	// sberProtocol1 is the classical one: ACTION, ACCOUNT, AMOUNT, PAY_ID, PAY_DATE.
	sberProtocol1 protocol = "sber1"
	// sberProtocol2 is shaped like OSMP: command, account, sum, txn_id, txn_date.
	sberProtocol2 protocol = "sber2"
)

// command is what a partner asks for.
type command string

const (
	checkCommand   command = "check"
	payCommand     command = "pay"
	statusCommand  command = "status"
	cancelCommand  command = "cancel"
	unknownCommand command = "unknown"
)

func commands() []command {
	return []command{checkCommand, payCommand, statusCommand, cancelCommand, unknownCommand}
}

// request is a partner's question. Its texts have been looked at and hold
// nothing but digits; terminal holds letters, digits, dots, dashes and underscores.
type request struct {
	protocol protocol
	command  command
	txn      string
	account  string
	// sum is zero when the terminal does not know it yet.
	sum money.Amount
	// bankAt is when the bank took the money.
	bankAt time.Time
	// payee is the payment code the request names; empty when it names none.
	payee    string
	terminal string
	// prv is our number of the payment a cancel or status means; 0 when it means txn.
	prv int64
}

// errParameters says that a request's parameters cannot be read.
var errParameters = errors.New("parameters cannot be read")

// parameters are a request's by lower-case name.
type parameters map[string]string

// readParameters reads a GET's query, or a POST's query and form. A name that
// comes twice, in whatever case, is an error: the two halves of a system must
// not read two different requests.
func readParameters(r *http.Request) (parameters, error) {
	raw := r.URL.RawQuery
	if r.Method == http.MethodPost {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || kind != "application/x-www-form-urlencoded" {
			return nil, errParameters
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, maxQuery+1))
		if err != nil {
			return nil, errParameters
		}
		raw = strings.Trim(raw+"&"+string(body), "&")
	}
	return parseParameters(raw)
}

func parseParameters(raw string) (parameters, error) {
	if len(raw) > maxQuery {
		return nil, errParameters
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errParameters
	}
	ps := make(parameters, len(values))
	for name, all := range values {
		name = strings.ToLower(name)
		if _, doubled := ps[name]; doubled || len(all) != 1 {
			return nil, errParameters
		}
		ps[name] = all[0]
	}
	return ps, nil
}

// read makes a request of parameters. The outcome is OK, or the first thing
// that is wrong; the request then holds what was right before it, for the answer.
func (p *Partner) read(ps parameters) (request, Outcome) {
	r := request{protocol: osmpProtocol}
	names := struct{ txn, account, sum, date, payee string }{"txn_id", "account", "sum", "txn_date", "pay_type"}
	word := ps["command"]
	if p.Dialect == Sber {
		r.protocol = sberProtocol2
		names.payee = "serv_id"
		if action, classical := ps["action"]; classical {
			r.protocol = sberProtocol1
			word = action
			names.txn, names.sum, names.date = "pay_id", "amount", "pay_date"
		}
	}
	switch strings.ToLower(word) {
	case "check":
		r.command = checkCommand
	case "pay", "payment":
		r.command = payCommand
	case "status":
		r.command = statusCommand
	case "cancel":
		r.command = cancelCommand
	default:
		r.command = unknownCommand
	}
	// The id first: every answer echoes it.
	txn, account, sum, date := ps[names.txn], ps[names.account], ps[names.sum], ps[names.date]
	if validTxn(txn) {
		r.txn = txn
	}
	if terminal := ps["trm_id"]; plainWord(terminal) {
		r.terminal = terminal
	}
	switch r.command {
	case unknownCommand:
		if word == "" {
			return r, Missing
		}
		return r, UnknownCommand
	case statusCommand, cancelCommand:
		return r, r.readOriginal(ps)
	}

	mustHaveTxn := r.command == payCommand || r.protocol == osmpProtocol
	mustHaveSum := r.command == payCommand || r.protocol == osmpProtocol
	switch {
	case txn == "" && mustHaveTxn, account == "", sum == "" && mustHaveSum, date == "" && r.command == payCommand:
		return r, Missing
	case txn != "" && r.txn == "", r.command == payCommand && strings.Trim(txn, "0") == "":
		return r, BadTxn
	case !ledger.ValidAccountNumber(account):
		return r, BadAccount
	}
	r.account = account
	if sum != "" {
		var outcome Outcome
		if r.sum, outcome = parseSum(p.Dialect, sum); outcome != OK {
			return r, outcome
		}
	}
	if r.command == payCommand {
		if r.sum == 0 {
			return r, TooSmall
		}
		at, err := p.parseDate(r.protocol, date)
		if err != nil {
			return r, BadDate
		}
		r.bankAt = at
	}
	r.payee = ps[names.payee]
	return r, OK
}

// readOriginal reads which payment a status or a cancel means: cancel_txn_id,
// or prv_txn, or txn_id (pay_id) when neither is there.
func (r *request) readOriginal(ps parameters) Outcome {
	if text := ps["prv_txn"]; text != "" {
		number, ok := parseNumber(text)
		if !ok {
			return BadTxn
		}
		r.prv = number
		return OK
	}
	if text := ps["cancel_txn_id"]; text != "" {
		if r.txn = ""; validTxn(text) {
			r.txn = text
		}
	}
	switch {
	case r.txn != "":
		return OK
	case ps["txn_id"] == "" && ps["pay_id"] == "" && ps["cancel_txn_id"] == "":
		return Missing
	}
	return BadTxn
}

// parseNumber reads up to 18 digits.
func parseNumber(text string) (n int64, ok bool) {
	if !onlyDigits(text) || len(text) > 18 {
		return 0, false
	}
	for i := range len(text) {
		n = n*10 + int64(text[i]-'0')
	}
	return n, true
}

func validTxn(text string) bool { return len(text) <= maxTxnDigits && onlyDigits(text) }

func onlyDigits(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}

func plainWord(text string) bool {
	if text == "" || len(text) > maxTerminal {
		return false
	}
	for i := range len(text) {
		c := text[i]
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// parseSum reads a sum of roubles: decimal text with two digits after a dot.
// Sberbank may leave out the dot and the kopecks.
func parseSum(dialect Dialect, text string) (money.Amount, Outcome) {
	if dialect == Sber && onlyDigits(text) {
		text += ".00"
	}
	sum, err := money.Parse(text)
	switch {
	case errors.Is(err, money.ErrRange) && text[0] != '-':
		return 0, TooLarge
	case err != nil || sum < 0:
		return 0, BadSum
	}
	return sum, OK
}

// The forms of times.
const (
	osmpTime = "20060102150405"
	sberTime = "02.01.2006_15:04:05"
)

// parseDate reads the bank's time, in its zone.
func (p *Partner) parseDate(of protocol, text string) (time.Time, error) {
	layout := osmpTime
	if of == sberProtocol1 {
		layout = sberTime
	}
	// time.Parse reads a fraction of a second that the layout does not have.
	if len(text) != len(layout) {
		return time.Time{}, errParameters
	}
	at, err := time.ParseInLocation(layout, text, p.zone)
	if err != nil || at.Year() < 2000 || at.Year() > 2100 {
		return time.Time{}, errParameters
	}
	return at, nil
}
