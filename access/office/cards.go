package office

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// Card is a card as staff see it.
type Card struct {
	ID         access.CardID `json:"id"`
	Card       string        `json:"card" doc:"The identifier, as the card sends it." example:"9A3F105C"`
	Kind       access.Kind   `json:"kind"`
	State      access.State  `json:"state" doc:"issued: made out, opens nothing before it is handed over. active. temporary: lent until valid_until. blocked_lost, blocked_replaced. returned, destroyed: ended; the identifier is free."`
	Person     string        `json:"person,omitempty" doc:"The registry's id of the holder; absent for a companion's card." example:"p-17"`
	Name       string        `json:"name" example:"Петрова Мария"`
	Group      string        `json:"group,omitempty"`
	Companion  bool          `json:"companion,omitempty" doc:"The card of somebody who leads children of the kindergarten."`
	ValidUntil time.Time     `json:"valid_until,omitzero"`
	History    []CardStep    `json:"history,omitempty" nullable:"false" doc:"Who did what to it, oldest first."`
}

// CardStep is one line of a card's history.
type CardStep struct {
	What      string    `json:"what"`
	At        time.Time `json:"at"`
	By        string    `json:"by" example:"staff:staff-3"`
	Signature string    `json:"signature,omitempty"`
	Note      string    `json:"note,omitempty"`
}

// Order is a card to be made out or lent.
type Order struct {
	Card       string `json:"card" maxLength:"64" doc:"The identifier, as this tablet's reader reports it." example:"9A3F105C"`
	Person     string `json:"person,omitempty" maxLength:"64" doc:"Whose it is to be: the registry's id." example:"p-17"`
	Companion  string `json:"companion,omitempty" maxLength:"32" doc:"Instead of person: the phone of a companion." example:"+79000000001"`
	Kind       string `json:"kind,omitempty" maxLength:"32" doc:"What it is: social, own, fob, bracelet. Without it: own." example:"own"`
	ValidUntil string `json:"valid_until,omitempty" format:"date" doc:"The last day on which it works. Without it: for ever." example:"2027-05-31"`
	Lend       bool   `json:"lend,omitempty" doc:"A temporary card for today (R21): it works at once and ends by itself this evening."`
}

// Step is what is done to a card.
type Step struct {
	Signature  string `json:"signature,omitempty" maxLength:"200" doc:"hand-over: the mark of the signature, such as the number of the sheet and the line." example:"sheet 12, line 3"`
	Note       string `json:"note,omitempty" maxLength:"200" doc:"block, destroy: what happened."`
	Card       string `json:"card,omitempty" maxLength:"64" doc:"replace: the identifier of the new card."`
	Kind       string `json:"kind,omitempty" maxLength:"32" doc:"replace: the kind of the new card; without it that of the old one."`
	ValidUntil string `json:"valid_until,omitempty" format:"date" doc:"replace: the last day of the new card."`
}

func (r registrar) cards() {
	type cardBody struct{ Body Card }
	type cardsBody struct {
		Body struct {
			Cards []Card `json:"cards" nullable:"false"`
		}
	}
	route(r, huma.Operation{
		OperationID: "staff-find-cards", Method: http.MethodGet, Path: "/api/v1/staff/cards",
		Summary: "Whose card is this? Which cards has this person?", Errors: []int{404},
	}, func(ctx context.Context, v visit, input *struct {
		Person string `query:"person" doc:"The registry's id."`
		Card   string `query:"card" doc:"The identifier, as this tablet's reader reports it."`
	},
	) (*cardsBody, error) {
		cards, err := r.office.findCards(ctx, v, input.Person, input.Card)
		if err != nil {
			return nil, err
		}
		var output cardsBody
		output.Body.Cards = cards
		return &output, nil
	})
	route(r, huma.Operation{
		OperationID: "staff-show-card", Method: http.MethodGet, Path: "/api/v1/staff/cards/{id}",
		Summary: "A card with its history", Errors: []int{404},
	}, func(ctx context.Context, v visit, input *struct {
		ID int64 `path:"id"`
	},
	) (*cardBody, error) {
		card, err := r.office.showCard(ctx, v, access.CardID(input.ID))
		return &cardBody{card}, err
	})
	route(r, huma.Operation{
		OperationID: "staff-issue-card", Method: http.MethodPost, Path: "/api/v1/staff/cards", DefaultStatus: http.StatusCreated,
		Summary: "Issue a card, or lend one for today", Errors: []int{404, 409},
		Description: "An issued card opens nothing until it is handed over against signature. A card that readers of the " +
			"organisation could not tell from another one is refused with 409.",
	}, func(ctx context.Context, v visit, input *struct{ Body Order }) (*cardBody, error) {
		card, err := r.office.issue(ctx, v, input.Body)
		return &cardBody{card}, err
	})
	route(r, huma.Operation{
		OperationID: "staff-turn-card", Method: http.MethodPost, Path: "/api/v1/staff/cards/{id}/{step}",
		Summary: "Hand over, block, find again, replace, take back or destroy a card", Errors: []int{404, 409},
		Description: "A block works for the next decision made online, and is in the lists of offline devices within half a " +
			"minute. replace blocks the card for good and answers with the new one, which is to be handed over.",
	}, func(ctx context.Context, v visit, input *struct {
		ID   int64  `path:"id"`
		Step string `path:"step" enum:"hand-over,block,found,replace,return,destroy"`
		Body *Step
	},
	) (*cardBody, error) {
		var step Step
		if input.Body != nil {
			step = *input.Body
		}
		card, err := r.office.turn(ctx, v, access.CardID(input.ID), input.Step, step)
		return &cardBody{card}, err
	})
}

func (o *Office) findCards(ctx context.Context, v visit, person, raw string) ([]Card, error) {
	var found []access.Card
	switch {
	case (person == "") == (raw == ""):
		return nil, huma.Error422UnprocessableEntity("Ask with person or with card.")
	case person != "":
		holder, err := personByCode(ctx, o.Pool, v.organisation(), person)
		if err != nil {
			return nil, err
		}
		if found, err = access.CardsOf(ctx, o.Pool, holder.ID); err != nil {
			return nil, err
		}
		// The cards of a former organisation are that one's.
		found = slices.DeleteFunc(found, func(c access.Card) bool { return c.Organisation != v.organisation() })
	default:
		uid, err := v.identifier(raw)
		if err != nil {
			return nil, err
		}
		if found, err = access.CardsWithUID(ctx, o.Pool, v.organisation(), uid); err != nil {
			return nil, err
		}
	}
	return v.describe(ctx, o.Pool, found)
}

func (o *Office) showCard(ctx context.Context, v visit, id access.CardID) (card Card, err error) {
	err = o.change(ctx, func(tx pgx.Tx) error {
		found, err := access.CardByID(ctx, tx, v.organisation(), id)
		if err != nil {
			return err
		}
		card, err = v.withHistory(ctx, tx, found)
		return err
	})
	return card, err
}

func (o *Office) issue(ctx context.Context, v visit, order Order) (card Card, err error) {
	next, err := v.read(ctx, o.Pool, order)
	if err != nil {
		return Card{}, err
	}
	err = o.change(ctx, func(tx pgx.Tx) error {
		make := access.IssueCard
		if order.Lend {
			make = access.LendCard
		}
		id, err := make(ctx, tx, next, v.by(), v.now)
		if err != nil {
			return err
		}
		card, err = v.show(ctx, tx, id)
		return err
	})
	return card, err
}

// read turns an order into a card to be made out.
func (v visit) read(ctx context.Context, q pg.Querier, order Order) (next access.NewCard, err error) {
	next = access.NewCard{Organisation: v.organisation(), Kind: access.Kind(cmp.Or(order.Kind, string(access.OwnCard)))}
	if next.UID, err = v.identifier(order.Card); err != nil {
		return next, err
	}
	if next.ValidUntil, err = v.lastDay(ctx, q, order.ValidUntil); err != nil {
		return next, err
	}
	if !order.Lend {
		if err := checkKind(ctx, q, next.Kind); err != nil {
			return next, err
		}
	}
	switch {
	case (order.Person == "") == (order.Companion == ""):
		return next, huma.Error422UnprocessableEntity("A card is a person's or a companion's.")
	case order.Person != "":
		holder, err := personByCode(ctx, q, v.organisation(), order.Person)
		next.Person = holder.ID
		return next, err
	}
	number, err := phone.Parse(order.Companion, "RU")
	if err != nil {
		return next, huma.Error422UnprocessableEntity("companion: " + err.Error())
	}
	companion, err := access.RepresentativeByPhone(ctx, q, number)
	if errors.Is(err, access.ErrNoRepresentative) {
		return next, access.ErrHolder // as if it were another organisation's companion
	}
	next.Representative = companion.ID
	return next, err
}

func (o *Office) turn(ctx context.Context, v visit, id access.CardID, step string, s Step) (card Card, err error) {
	var uid access.UID
	var until time.Time
	if step == "replace" {
		if uid, err = v.identifier(s.Card); err != nil {
			return Card{}, err
		}
		if until, err = v.lastDay(ctx, o.Pool, s.ValidUntil); err != nil {
			return Card{}, err
		}
		if s.Kind != "" {
			if err := checkKind(ctx, o.Pool, access.Kind(s.Kind)); err != nil {
				return Card{}, err
			}
		}
	}
	err = o.change(ctx, func(tx pgx.Tx) error {
		if _, err := access.CardByID(ctx, tx, v.organisation(), id); err != nil {
			return err
		}
		var err error
		switch step {
		case "hand-over":
			if strings.TrimSpace(s.Signature) == "" {
				return huma.Error422UnprocessableEntity("signature: a card is handed over against signature (R19); name its mark.")
			}
			err = access.HandOver(ctx, tx, id, v.by(), strings.TrimSpace(s.Signature), v.now)
		case "block":
			err = access.BlockCard(ctx, tx, id, v.by(), s.Note, v.now)
		case "found":
			err = access.FoundCard(ctx, tx, id, v.by(), v.now)
		case "replace":
			id, err = access.ReplaceCard(ctx, tx, id, uid, access.Kind(s.Kind), until, v.by(), v.now)
		case "return":
			err = access.ReturnCard(ctx, tx, id, v.by(), v.now)
		case "destroy":
			err = access.DestroyCard(ctx, tx, id, v.by(), s.Note, v.now)
		}
		if err != nil {
			return err
		}
		card, err = v.show(ctx, tx, id)
		return err
	})
	return card, err
}

// identifier reads a card as this tablet's reader reports it.
func (v visit) identifier(raw string) (access.UID, error) {
	uid, part, err := v.device.Profile.Read(raw)
	switch {
	case errors.Is(err, access.ErrUID):
		return "", huma.Error422UnprocessableEntity("card: " + access.ErrUID.Error() + ".")
	case err != nil:
		return "", err
	case part != access.Whole:
		return "", huma.Error422UnprocessableEntity("card: this reader reports only a part of the identifier; a card is issued with all of it.")
	}
	return uid, nil
}

// lastDay turns the last day of a card into the moment at which it ends.
func (v visit) lastDay(ctx context.Context, q pg.Querier, day string) (time.Time, error) {
	if day == "" {
		return time.Time{}, nil
	}
	date, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return time.Time{}, huma.Error422UnprocessableEntity("valid_until: want a day such as 2027-05-31.")
	}
	found, err := ledger.Organisations(ctx, q, []ledger.OrganisationID{v.organisation()})
	if err != nil {
		return time.Time{}, err
	}
	end := time.Date(date.Year(), date.Month(), date.Day()+1, 0, 0, 0, 0, found[v.organisation()].Location)
	if !end.After(v.now) {
		return time.Time{}, huma.Error422UnprocessableEntity("valid_until: that day is over.")
	}
	return end, nil
}

func checkKind(ctx context.Context, q pg.Querier, kind access.Kind) error {
	kinds, err := access.CardKinds(ctx, q)
	if err != nil {
		return err
	}
	kinds = slices.DeleteFunc(kinds, func(k access.Kind) bool { return k == access.TemporaryCard })
	if slices.Contains(kinds, kind) {
		return nil
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return huma.Error422UnprocessableEntity("kind: want one of " + strings.Join(names, ", ") + "; a temporary card is lent.")
}

// show reads a card after a step.
func (v visit) show(ctx context.Context, tx pgx.Tx, id access.CardID) (Card, error) {
	found, err := access.CardByID(ctx, tx, v.organisation(), id)
	if err != nil {
		return Card{}, err
	}
	return v.withHistory(ctx, tx, found)
}

func (v visit) withHistory(ctx context.Context, q pg.Querier, found access.Card) (Card, error) {
	cards, err := v.describe(ctx, q, []access.Card{found})
	if err != nil {
		return Card{}, err
	}
	steps, err := access.CardHistory(ctx, q, found.ID)
	if err != nil {
		return Card{}, err
	}
	for _, s := range steps {
		cards[0].History = append(cards[0].History, CardStep{s.What, s.At, s.By.String(), s.Signature, s.Note})
	}
	return cards[0], nil
}

// describe names the holders of cards, and logs the look at them.
func (v visit) describe(ctx context.Context, q pg.Querier, found []access.Card) ([]Card, error) {
	var ids []ledger.PersonID
	for _, c := range found {
		if c.Person != 0 {
			ids = append(ids, c.Person)
		}
	}
	people, err := ledger.People(ctx, q, ids)
	if err != nil {
		return nil, err
	}
	holders := make([]ledger.Person, 0, len(people))
	for _, p := range people {
		holders = append(holders, p)
	}
	if err := v.look(ctx, q, "cards", access.Staff, holders...); err != nil {
		return nil, err
	}
	cards := make([]Card, len(found))
	for i, c := range found {
		cards[i] = Card{ID: c.ID, Card: string(c.UID), Kind: c.Kind, State: c.State, ValidUntil: c.ValidUntil}
		if p, ok := people[c.Person]; ok {
			cards[i].Person, cards[i].Name, cards[i].Group = p.Code, p.FamilyName+" "+p.GivenName, p.Group
			continue
		}
		cards[i].Companion = true
		companion, err := access.RepresentativeByID(ctx, q, c.Representative)
		if err != nil && !errors.Is(err, access.ErrNoRepresentative) {
			return nil, err
		}
		cards[i].Name = strings.TrimSpace(companion.Names.Family + " " + companion.Names.Given)
	}
	return cards, nil
}
