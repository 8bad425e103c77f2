package reader

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger/money"
)

// EventUpload is the body of an upload, as the OpenAPI document describes it.
type EventUpload struct {
	SentAt time.Time     `json:"sent_at" required:"false"`
	Events []DeviceEvent `json:"events" maxItems:"1000" nullable:"false"`
}

// DeviceEvent is one event of a device. Which fields it has depends on its type.
type DeviceEvent struct {
	Seq           *int64     `json:"seq" required:"true" minimum:"0"`
	Type          string     `json:"type" required:"true" enum:"pass,admitted,denied,sale,reversal"`
	At            string     `json:"at" required:"true" format:"date-time"`
	Card          string     `json:"card,omitempty" example:"9A3F105C"`
	CompanionCard string     `json:"companion_card,omitempty" example:"9A3F1055"`
	Direction     string     `json:"direction,omitempty" enum:"in,out,unknown"`
	Person        string     `json:"person,omitempty" example:"p-17"`
	By            string     `json:"by,omitempty" example:"staff-3"`
	Kind          string     `json:"kind,omitempty" enum:"buffet,hot,subsidised"`
	Meal          string     `json:"meal,omitempty" example:"lunch"`
	Items         []SaleItem `json:"items,omitempty" nullable:"false" maxItems:"100"`
	Total         string     `json:"total,omitempty" example:"70.00"`
	Of            *int64     `json:"of,omitempty"`
	Reason        string     `json:"reason,omitempty" example:"unknown"`
}

// SaleItem is one line of a receipt.
type SaleItem struct {
	Code     string `json:"code" example:"b12"`
	Name     string `json:"name" example:"Булочка"`
	Quantity int    `json:"quantity" minimum:"1" maximum:"1000"`
	Price    string `json:"price" example:"35.00"`
}

// Code is why an event was rejected: a closed list.
type Code string

// The codes.
const (
	BadEvent        Code = "bad_event"
	UnknownCard     Code = "unknown_card"
	CardBlocked     Code = "card_blocked"
	CardExpired     Code = "card_expired"
	CardInactive    Code = "card_inactive"
	CompanionAlone  Code = "companion_alone"
	UnknownPerson   Code = "unknown_person"
	BadTotal        Code = "bad_total"
	BadClock        Code = "clock"
	Conflict        Code = "conflict"
	NoWallet        Code = "no_wallet"
	NotEntitled     Code = "not_entitled"
	AlreadyServed   Code = "already_served"
	NoSale          Code = "no_sale"
	AlreadyReversed Code = "already_reversed"
	Refused         Code = "refused"
	Unprocessable   Code = "unprocessable"
	DeviceRevoked   Code = "device_revoked"
)

// codes lists every code with its meaning, for the description and for labels.
var codes = []struct {
	Code    Code
	Meaning string
}{
	{BadEvent, "a field is missing or says what it cannot; the message names it"},
	{UnknownCard, "the card is nobody's in the device's organisation, or its shortened form fits several"},
	{CardBlocked, "the card was lost or replaced when it was used"},
	{CardExpired, "the card's time was over, or it had been returned, when it was used"},
	{CardInactive, "the card had not been handed over yet"},
	{CompanionAlone, "the card is a companion's and there is no child's beside it"},
	{UnknownPerson, "there is no such person in the device's organisation"},
	{BadTotal, "the total is not above zero, too large, not roubles and kopecks, or not the sum of the items"},
	{BadClock, "the time is over 400 days ago or over an hour in the future, even by the device's own clock"},
	{Conflict, "the number was used before with another content, which stays; " +
		"a device whose counter was reset needs a new key"},
	{NoWallet, "the person has no account to pay from"},
	{NotEntitled, "the city does not pay this meal for this person"},
	{AlreadyServed, "this subsidised meal was served to this person on that day; it is acknowledged after all " +
		"when that serving is reversed"},
	{NoSale, "what is to be reversed is not an accepted sale"},
	{AlreadyReversed, "the sale has been reversed before"},
	{Refused, "the books refuse it; the message says why"},
	{Unprocessable, "the database refuses it; staff have been told"},
	{DeviceRevoked, "it came by another device's key and its own is revoked, as of one access point of several of a Sigur server"},
}

// Rejection is one rejected event, as the device is told.
type Rejection struct {
	Seq     int64  `json:"seq"`
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// eventType is the type of an event, as it is stored.
type eventType int16

const (
	noType        eventType = 0 // not one we know; always rejected
	passEvent     eventType = 1
	admittedEvent eventType = 2
	deniedEvent   eventType = 3
	saleEvent     eventType = 4
	reversalEvent eventType = 5
)

var eventTypes = []string{"unknown", "pass", "admitted", "denied", "sale", "reversal"}

func parseEventType(raw string) eventType {
	for i, name := range eventTypes {
		if name == raw && i > 0 {
			return eventType(i)
		}
	}
	return noType
}

func (t eventType) String() string { return eventTypes[t] }

// bodyHash is what two events with the same content have in common.
type bodyHash [16]byte

// fact is an event that has been read: what it says, or why it cannot be. It
// is not changed after that, so a batch may be tried again.
type fact struct {
	device     *Device
	seq        int64
	event      eventType
	hash       bodyHash
	raw        []byte // as the device sent it
	receivedAt time.Time
	rejection  Rejection // its code is empty when all is well so far

	at, rawAt time.Time
	silent    bool // nobody is told: the clock is off by hours

	card, companion cardRead
	direction       door.Direction // 0: the reader does not know it

	person, by string // codes of the register

	sale sale

	of     int64
	reason string
}

// cardRead is a card as it was held to a reader.
type cardRead struct {
	given bool
	uid   access.UID
	part  access.Part
}

// sale is what a till sold.
type sale struct {
	kind, meal string
	total      money.Amount
	items      []soldItem
}

type soldItem struct {
	code, name string
	quantity   int
	price      money.Amount
}

// read turns an event into a fact. Its mistakes end in the fact's rejection.
func read(e *DeviceEvent, raw []byte, device *Device, c clock) *fact {
	f := &fact{
		device: device, seq: *e.Seq, event: parseEventType(e.Type), hash: e.hash(), raw: raw,
		receivedAt: c.receivedAt, at: c.receivedAt, rawAt: c.receivedAt, silent: c.wild(),
	}
	if code, message := f.take(e, c); code != "" {
		f.rejection = Rejection{Seq: f.seq, Code: code, Message: message}
	}
	return f
}

// take reads what an event of its type says, and returns why it cannot be.
func (f *fact) take(e *DeviceEvent, c clock) (Code, string) {
	if f.event == noType {
		return BadEvent, "type: want pass, admitted, denied, sale or reversal"
	}
	rawAt, err := time.Parse(time.RFC3339, e.At)
	if err != nil {
		return BadEvent, "at: want a time such as 2026-11-22T08:15:03+03:00"
	}
	f.rawAt = rawAt
	at, possible := c.correct(rawAt)
	f.at = at
	if !possible {
		f.silent = true
		// What was eaten must be paid for, whatever the clock says; when a child
		// came in cannot be guessed.
		if f.event == passEvent || f.event == admittedEvent {
			return BadClock, "at: " + e.At + " cannot be when it happened"
		}
	}
	switch f.event {
	case passEvent:
		if code, message := f.takeDirection(e); code != "" {
			return code, message
		}
		if e.CompanionCard != "" {
			// A companion's card that nothing can be made of is as good as an unknown one.
			f.companion, _ = readCard(e.CompanionCard, f.device.Profile)
			f.companion.given = true
		}
		return f.takeCard(e)
	case admittedEvent:
		if e.Person == "" {
			return BadEvent, "person: who was let in?"
		}
		f.person, f.by = clean(e.Person), clean(e.By)
		return f.takeDirection(e)
	case deniedEvent:
		f.reason = clean(e.Reason)
		f.card, _ = readCard(e.Card, f.device.Profile)
		if f.card.uid == "" {
			f.card.uid = access.UID(clean(e.Card)) // staff see what the reader saw
		}
		f.direction, _ = door.ParseDirection(e.Direction)
		return "", ""
	case saleEvent:
		if code, message := f.takeSale(e); code != "" {
			return code, message
		}
		return f.takeCard(e)
	default:
		if e.Of == nil || *e.Of < 0 || *e.Of > maxSeq {
			return BadEvent, "of: the number of the sale"
		}
		if *e.Of == f.seq {
			return BadEvent, "of: a reversal of itself"
		}
		f.of = *e.Of
		return "", ""
	}
}

func (f *fact) takeDirection(e *DeviceEvent) (Code, string) {
	if e.Direction == "" || e.Direction == "unknown" {
		return "", ""
	}
	direction, err := door.ParseDirection(e.Direction)
	if err != nil {
		return BadEvent, "direction: want in, out or unknown"
	}
	f.direction = direction
	return "", ""
}

func (f *fact) takeCard(e *DeviceEvent) (Code, string) {
	card, ok := readCard(e.Card, f.device.Profile)
	if !ok {
		return UnknownCard, "card: not an identifier of 4 to 10 octets, or not one this reader can report"
	}
	f.card = card
	return "", ""
}

func readCard(raw string, profile access.Profile) (card cardRead, ok bool) {
	uid, part, err := profile.Read(raw)
	if err != nil {
		return cardRead{}, false
	}
	return cardRead{given: true, uid: uid, part: part}, true
}

func (f *fact) takeSale(e *DeviceEvent) (Code, string) {
	switch e.Kind {
	case "buffet", "hot", "subsidised":
	default:
		return BadEvent, "kind: want buffet, hot or subsidised"
	}
	f.sale.kind, f.sale.meal = e.Kind, clean(e.Meal)
	if e.Kind != "buffet" && f.sale.meal == "" {
		return BadEvent, "meal: which one?"
	}
	total, err := money.Parse(e.Total)
	if err != nil {
		return BadTotal, "total: want roubles and kopecks such as 70.00"
	}
	if total <= 0 || total > maxSaleTotal {
		return BadTotal, fmt.Sprintf("total: %s is not above zero and at most %s", total, money.Amount(maxSaleTotal))
	}
	if len(e.Items) > maxItems {
		return BadEvent, fmt.Sprintf("items: at most %d", maxItems)
	}
	var sum money.Amount
	for i, item := range e.Items {
		price, err := money.Parse(item.Price)
		if err != nil || price < 0 || price > maxSaleTotal {
			return BadTotal, fmt.Sprintf("items[%d].price: want roubles and kopecks such as 35.00", i)
		}
		if item.Quantity < 1 || item.Quantity > maxQuantity {
			return BadTotal, fmt.Sprintf("items[%d].quantity: want 1 to %d", i, maxQuantity)
		}
		sum += price * money.Amount(item.Quantity) // at most 100 * 10^7 * 10^3, far from the end of int64
		f.sale.items = append(f.sale.items, soldItem{clean(item.Code), cleanDish(item.Name), item.Quantity, price})
	}
	if len(e.Items) > 0 && sum != total {
		return BadTotal, fmt.Sprintf("total: %s is not the sum of the items, %s", total, sum)
	}
	f.sale.total = total
	return "", ""
}

// clean makes a device's word fit to be stored and shown: one line of at most
// maxText characters without control and formatting characters.
func clean(raw string) string { return cut(raw, maxText, len(raw)) }

// cleanDish does so with the name of a dish, which has to equal the menu's: it is
// cut later, and spaces of all kinds between words are one plain space.
func cleanDish(raw string) string {
	return cut(strings.Join(strings.Fields(raw), " "), maxDish, maxDishBytes)
}

func cut(raw string, characters, octets int) string {
	var b strings.Builder
	length := 0
	for _, r := range raw {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			continue
		}
		if length == characters || b.Len()+utf8.RuneLen(r) > octets {
			break
		}
		b.WriteRune(r)
		length++
	}
	return strings.TrimSpace(b.String())
}

// hash is equal for events that say the same, however their JSON is written.
func (e *DeviceEvent) hash() bodyHash {
	buffer := make([]byte, 0, 256)
	text := func(s string) {
		buffer = binary.AppendUvarint(buffer, uint64(len(s)))
		buffer = append(buffer, s...)
	}
	at := e.At
	if moment, err := time.Parse(time.RFC3339, at); err == nil {
		at = strconv.FormatInt(moment.Unix(), 10) + "." + strconv.Itoa(moment.Nanosecond())
	}
	for _, field := range []string{
		e.Type, at, e.Card, e.CompanionCard, e.Direction, e.Person, e.By, e.Kind, e.Meal, e.Total, e.Reason,
	} {
		text(field)
	}
	of := int64(-1)
	if e.Of != nil {
		of = *e.Of
	}
	buffer = binary.AppendVarint(buffer, of)
	for _, item := range e.Items {
		text(item.Code)
		text(item.Name)
		buffer = binary.AppendVarint(buffer, int64(item.Quantity))
		text(item.Price)
	}
	sum := sha256.Sum256(buffer)
	return bodyHash(sum[:len(bodyHash{})])
}
