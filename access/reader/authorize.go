package reader

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
)

// Question asks whether a card may pass a door, or buy at a till when it names a
// kind of sale.
type Question struct {
	Card          string     `json:"card" required:"true" example:"9A3F105C"`
	CompanionCard string     `json:"companion_card,omitempty" example:"9A3F1055"`
	Direction     string     `json:"direction,omitempty" enum:"in,out"`
	Kind          string     `json:"kind,omitempty" enum:"buffet,hot,subsidised"`
	Meal          string     `json:"meal,omitempty" example:"lunch"`
	Total         string     `json:"total,omitempty" example:"70.00"`
	Items         []SaleItem `json:"items,omitempty" nullable:"false" maxItems:"100"`
}

// Decision answers a question.
type Decision struct {
	Allow     bool           `json:"allow"`
	Person    *DecidedPerson `json:"person,omitempty"`
	Reason    Reason         `json:"reason"`
	Balance   *money.Amount  `json:"balance,omitempty" example:"143.50"`
	LimitLeft *money.Amount  `json:"limit_left,omitempty" example:"50.00"`
	Banned    []SaleItem     `json:"banned,omitempty" nullable:"false"`
}

// DecidedPerson is who stands at the door or the till, as far as staff need to
// know: the family name and an initial.
type DecidedPerson struct {
	Name     string `json:"name" example:"Петрова М."`
	PhotoURL string `json:"photo_url"`
}

// Reason is why somebody may not pass or buy: the codes of cards, and those below.
type Reason string

// The reasons beside the codes of cards.
const (
	companionRequired Reason = "companion_required"
	companionUnlisted Reason = "companion_unlisted"
	companionYoung    Reason = "companion_too_young"
)

// reasons lists every reason with its meaning.
var reasons = []struct {
	Reason  Reason
	Meaning string
}{
	{Reason(UnknownCard), "the card is nobody's in this organisation"},
	{Reason(CardBlocked), "the card was lost or replaced"},
	{Reason(CardExpired), "the card's time is over, or it was returned"},
	{Reason(CardInactive), "the card has not been handed over"},
	{Reason(CompanionAlone), "a companion's card, without the child's"},
	{companionRequired, "a kindergarten child leaves with a companion only"},
	{companionUnlisted, "the companion is not on the child's list"},
	{companionYoung, "the companion is below the organisation's age of companions"},
	{Reason(meal.CodeNotEnough), "there is not enough money"},
	{Reason(meal.CodeOverLimit), "the parents' limit of the day is spent"},
	{Reason(meal.CodeBanned), "the parents do not want an item sold; banned names it"},
	{Reason(meal.CodeNoWallet), "there is no account to pay from"},
	{Reason(meal.CodeClosed), "the account is closed"},
	{Reason(meal.CodeNotEntitled), "the city does not pay this meal for this person"},
	{Reason(meal.CodeAlreadyServed), "this subsidised meal was served to this person today"},
}

func authorizeText() string {
	var b strings.Builder
	b.WriteString("At a door the question names a direction, at a till a kind of sale. Reasons:\n")
	for _, r := range reasons {
		b.WriteString("\n" + string(r.Reason) + ": " + r.Meaning)
	}
	return b.String()
}

// serveAuthorize answers POST /api/v1/authorize.
func (in *Intake) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	began := in.now()
	decision, err := in.takeQuestion(w, r)
	if err != nil {
		in.refuse(w, r, authorizeRoute, err)
		return
	}
	in.answer(w, authorizeRoute, began, decision)
}

// answer writes the JSON of a question's answer.
func (in *Intake) answer(w http.ResponseWriter, route string, began time.Time, document any) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	body, err := json.Marshal(document)
	if err != nil { // it holds only strings and numbers
		panic(err)
	}
	w.Write(body) // a device that has gone asks again
	in.metrics.answered(route, in.now().Sub(began))
}

func (in *Intake) takeQuestion(w http.ResponseWriter, r *http.Request) (Decision, error) {
	if err := checkBody(r, maxQuestion); err != nil {
		return Decision{}, err
	}
	device, err := in.keys.device(r.Context(), r.Header.Get("Authorization"))
	if err != nil {
		return Decision{}, err
	}
	in.see(device.ID, r)
	leave, err := in.questions.take(device.ID, bodySize(r, maxQuestion))
	if err != nil {
		return Decision{}, err
	}
	defer leave()
	in.metrics.underWay.WithLabelValues(authorizeRoute).Inc()
	defer in.metrics.underWay.WithLabelValues(authorizeRoute).Dec()
	body, err := in.readBody(w, r, maxQuestion)
	if err != nil {
		return Decision{}, err
	}
	question, err := parseQuestion(body)
	if err != nil {
		return Decision{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), questionTime)
	defer cancel()
	decision, err := in.decide(ctx, device, question)
	if err != nil {
		return Decision{}, fmt.Errorf("decide on a card: %w", err)
	}
	in.well(r.Context())
	return decision, nil
}

// asked is a question that has been read.
type asked struct {
	Question
	leaves bool
	sale   sale // at a till
}

func parseQuestion(body []byte) (asked, error) {
	var q asked
	if !utf8.Valid(body) {
		return q, &mistake{"body", "not UTF-8"}
	}
	if err := json.Unmarshal(body, &q.Question); err != nil {
		return q, locate(err, body, "body")
	}
	if q.Card == "" {
		return q, &mistake{"body.card", "required"}
	}
	if q.Kind == "" {
		direction, err := door.ParseDirection(q.Direction)
		if err != nil {
			return q, &mistake{"body.direction", "want in or out, or at a till a kind"}
		}
		q.leaves = direction == door.Out
		return q, nil
	}
	f := fact{}
	e := DeviceEvent{Kind: q.Kind, Meal: q.Meal, Total: q.Total, Items: q.Items}
	if _, message := f.takeSale(&e); message != "" {
		field, text, _ := strings.Cut(message, ": ")
		return q, &mistake{"body." + field, text}
	}
	q.sale = f.sale
	return q, nil
}

// decide answers a question.
func (in *Intake) decide(ctx context.Context, device *Device, q asked) (Decision, error) {
	now := in.now()
	queries := make([]access.CardQuery, 0, 2)
	card, ok := readCard(q.Card, device.Profile)
	if !ok {
		return Decision{Reason: Reason(UnknownCard)}, nil
	}
	queries = append(queries, access.CardQuery{Organisation: device.Organisation, UID: card.uid, Part: card.part, At: now})
	companion, withCompanion := readCard(q.CompanionCard, device.Profile)
	if withCompanion {
		queries = append(queries, access.CardQuery{
			Organisation: device.Organisation, UID: companion.uid, Part: companion.part, At: now,
		})
	}
	holders, err := access.ResolveCards(ctx, in.pool, queries)
	if err != nil {
		return Decision{}, err
	}
	if code, _ := judgeCard(holders[0], now); code != "" {
		return Decision{Reason: Reason(code)}, nil
	}
	people, err := ledger.People(ctx, in.pool, []ledger.PersonID{holders[0].Person})
	if err != nil {
		return Decision{}, err
	}
	person := people[holders[0].Person]
	decision := Decision{Allow: true, Person: &DecidedPerson{Name: shortName(person)}}
	if q.Kind != "" {
		return in.decideSale(ctx, device, person, q, decision)
	}
	if !q.leaves {
		return decision, nil
	}
	exit := door.Exit{Organisation: device.Organisation, Person: person.ID, At: now}
	if withCompanion && holders[1].Usable(now) {
		exit.Companion = holders[1].Representative
	}
	exit.UnknownCompanion = q.CompanionCard != "" && exit.Companion == 0
	alarms, err := in.recorder.JudgeExits(ctx, in.pool, now, []door.Exit{exit})
	if err != nil {
		return Decision{}, err
	}
	switch alarms[0] {
	case door.NoCompanion:
		decision.Allow, decision.Reason = false, companionRequired
	case door.UnlistedCompanion:
		decision.Allow, decision.Reason = false, companionUnlisted
	case door.YoungCompanion:
		decision.Allow, decision.Reason = false, companionYoung
	}
	return decision, nil
}

// decideSale asks the canteen.
func (in *Intake) decideSale(
	ctx context.Context, device *Device, person ledger.Person, q asked, decision Decision,
) (Decision, error) {
	answer, err := in.canteen.Authorize(ctx, in.pool, meal.Ask{
		Person: person.ID, Kind: meal.Kind(q.sale.kind), Meal: q.sale.meal, Items: mealItems(q.sale.items),
		Total: q.sale.total, Device: int64(device.ID), At: in.now(),
	})
	if err != nil {
		return Decision{}, err
	}
	decision.Allow, decision.Reason = answer.Allow, Reason(answer.Reason)
	decision.Balance, decision.LimitLeft = &answer.Balance, answer.LimitLeft
	for _, place := range answer.Banned {
		decision.Banned = append(decision.Banned, q.Items[place])
	}
	return decision, nil
}

// shortName is the family name and the initial of the given name.
func shortName(p ledger.Person) string {
	initial, _ := utf8.DecodeRuneInString(p.GivenName)
	if p.GivenName == "" {
		return p.FamilyName
	}
	return p.FamilyName + " " + string(initial) + "."
}
