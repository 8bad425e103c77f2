package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/phone"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// schoolCommands are what a school does with its doors.
type schoolCommands struct {
	Card         cardCommands         `cmd:"" help:"Cards: issue, hand over, lend for a day, block, replace, take back."`
	Presence     presenceCommand      `cmd:"" help:"Who is in the building now: the evacuation list."`
	Attendance   attendanceCommand    `cmd:"" help:"Who came, who was late, who did not come, and why."`
	Timetable    timetableCommands    `cmd:"" help:"When the groups' days begin, and the days without lessons."`
	Excuse       excuseCommands       `cmd:"" help:"Why somebody does not come."`
	Absence      absenceCommands      `cmd:"" help:"The news that a child has not come: its time, and the batches held for a person."`
	Quarantine   quarantineCommands   `cmd:"" help:"Events of devices that were rejected."`
	Organisation organisationCommands `cmd:"" help:"An organisation's own rules: quiet hours, digests, how long a passage is news, debts."`
	Retention    retentionCommands    `cmd:"" help:"Destroy what is past its time, with the act of destruction."`
}

type cardCommands struct {
	Find      cardFindCommand      `cmd:"" help:"Find cards by their holder or their identifier."`
	Show      cardShowCommand      `cmd:"" help:"Show a card and who did what to it when."`
	Issue     cardIssueCommand     `cmd:"" help:"Issue a card; it opens nothing until it is handed over."`
	HandOver  cardHandOverCommand  `cmd:"" name:"hand-over" help:"Hand an issued card over against signature; from now on it works."`
	Temporary cardTemporaryCommand `cmd:"" help:"Lend a card for today to who forgot or lost theirs; it ends by itself this evening."`
	Block     cardBlockCommand     `cmd:"" help:"Block a lost card, at once."`
	Found     cardFoundCommand     `cmd:"" help:"Make a lost card work again."`
	Replace   cardReplaceCommand   `cmd:"" help:"Block a card for good and issue another to the same holder."`
	Return    cardReturnCommand    `cmd:"" help:"Take a card back; its identifier is free from now on."`
	Destroy   cardDestroyCommand   `cmd:"" help:"Write down the destruction of a card."`
}

// newCard is what a card to be made out is.
type newCard struct {
	Card  string `required:"" help:"The identifier in hexadecimal, as the card sends it." placeholder:"UID"`
	Kind  string `default:"own" help:"What it is: social, own, fob, bracelet."`
	Until string `help:"The last day on which it works; without it for ever." placeholder:"YYYY-MM-DD"`
}

// holder is whose a card is to be.
type holder struct {
	Person    string `help:"The holder (person_id of the registry)." placeholder:"PERSON" xor:"holder" required:""`
	Companion string `help:"Instead of --person: the phone of a companion." placeholder:"PHONE" xor:"holder" required:""`
	Org       string `help:"The organisation, for a companion's card (org_id of the registry)." placeholder:"ORG"`
}

func parseCard(raw string) (access.UID, error) {
	uid, err := access.ParseUID(raw)
	if err != nil {
		return "", usageError{fmt.Errorf("--card: %w", err)}
	}
	return uid, nil
}

// find turns the flags into a card to be made out.
func (h holder) find(ctx context.Context, q pg.Querier) (access.NewCard, error) {
	if h.Person != "" {
		person, err := personByCode(ctx, q, h.Person)
		return access.NewCard{Organisation: person.Organisation, Person: person.ID}, err
	}
	if h.Org == "" {
		return access.NewCard{}, usageError{errors.New("--org: at which organisation is the companion's card to work?")}
	}
	organisation, err := organisationByCode(ctx, q, h.Org)
	if err != nil {
		return access.NewCard{}, err
	}
	number, err := phone.Parse(h.Companion, "RU")
	if err != nil {
		return access.NewCard{}, usageError{fmt.Errorf("--companion: %w", err)}
	}
	companion, err := access.RepresentativeByPhone(ctx, q, number)
	return access.NewCard{Organisation: organisation, Representative: companion.ID}, err
}

// personByCode finds somebody of the register.
func personByCode(ctx context.Context, q pg.Querier, code string) (ledger.Person, error) {
	ids, err := ledger.PeopleByCode(ctx, q, []string{code})
	if err != nil {
		return ledger.Person{}, err
	}
	people, err := ledger.People(ctx, q, []ledger.PersonID{ids[code]})
	if err != nil {
		return ledger.Person{}, err
	}
	person, ok := people[ids[code]]
	if !ok {
		return ledger.Person{}, fmt.Errorf("person %q is not in the register; give its person_id of people.csv", code)
	}
	return person, nil
}

// lastDay turns the last day of a card into the moment at which it ends.
func lastDay(ctx context.Context, q pg.Querier, organisation ledger.OrganisationID, day string) (time.Time, error) {
	if day == "" {
		return time.Time{}, nil
	}
	date, err := dayFlag("--until", day)
	if err != nil {
		return time.Time{}, err
	}
	found, err := ledger.Organisations(ctx, q, []ledger.OrganisationID{organisation})
	if err != nil {
		return time.Time{}, err
	}
	return time.Date(date.Year(), date.Month(), date.Day()+1, 0, 0, 0, 0, found[organisation].Location), nil
}

func dayFlag(name, text string) (time.Time, error) {
	date, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return time.Time{}, usageError{fmt.Errorf("%s: %q is not a day such as 2027-05-31", name, text)}
	}
	return date, nil
}

// periodFlags reads --from and --to; without --to it is one day.
func periodFlags(from, to string) (first, last time.Time, err error) {
	if first, err = dayFlag("--from", from); err != nil || to == "" {
		return first, first, err
	}
	last, err = dayFlag("--to", to)
	return first, last, err
}

// withCards runs a change of cards and shows the card it is about afterwards.
func (c *console) withCards(ctx context.Context, asJSON bool, work func(context.Context, pgx.Tx) (access.CardID, error)) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
			id, err := work(ctx, tx)
			if errors.Is(err, access.ErrNoCard) {
				return errors.New("there is no such card; zvonok card find names the cards of a person or an identifier")
			}
			if err != nil {
				return err
			}
			return c.showCard(ctx, tx, id, asJSON)
		})
	})
}

// shownCard is a card with its history, for people and programs.
type shownCard struct {
	ID         access.CardID `json:"id"`
	Card       access.UID    `json:"card"`
	Kind       access.Kind   `json:"kind"`
	State      access.State  `json:"state"`
	Person     string        `json:"person,omitempty"`
	Companion  bool          `json:"companion,omitempty"`
	ValidUntil time.Time     `json:"valid_until,omitzero"`
	History    []shownStep   `json:"history,omitempty"`
}

type shownStep struct {
	What      string    `json:"what"`
	At        time.Time `json:"at"`
	By        string    `json:"by"`
	Signature string    `json:"signature,omitempty"`
	Note      string    `json:"note,omitempty"`
}

func showCards(ctx context.Context, q pg.Querier, cards []access.Card) ([]shownCard, error) {
	var ids []ledger.PersonID
	for _, card := range cards {
		ids = append(ids, card.Person)
	}
	people, err := ledger.People(ctx, q, ids)
	if err != nil {
		return nil, err
	}
	shown := make([]shownCard, len(cards))
	for i, card := range cards {
		shown[i] = shownCard{
			ID: card.ID, Card: card.UID, Kind: card.Kind, State: card.State, Person: people[card.Person].Code,
			Companion: card.Representative != 0, ValidUntil: card.ValidUntil,
		}
	}
	return shown, nil
}

func (s shownCard) cells() []any {
	until, who := "", s.Person
	if !s.ValidUntil.IsZero() {
		until = s.ValidUntil.Local().Format(moment)
	}
	if s.Companion {
		who = "a companion"
	}
	return []any{s.ID, s.Card, s.Kind, s.State, who, until}
}

var cardColumns = []any{"ID", "CARD", "KIND", "STATE", "PERSON", "VALID UNTIL"}

func (c *console) showCard(ctx context.Context, q pg.Querier, id access.CardID, asJSON bool) error {
	card, err := access.FindCard(ctx, q, id)
	if err != nil {
		return err
	}
	shown, err := showCards(ctx, q, []access.Card{card})
	if err != nil {
		return err
	}
	steps, err := access.CardHistory(ctx, q, id)
	if err != nil {
		return err
	}
	for _, s := range steps {
		shown[0].History = append(shown[0].History, shownStep{s.What, s.At, s.By.String(), s.Signature, s.Note})
	}
	if asJSON {
		return printJSON(c.out, shown[0])
	}
	if err := table(c.out, cardColumns, [][]any{shown[0].cells()}); err != nil {
		return err
	}
	return printSteps(c.out, shown[0].History)
}

func printSteps(w io.Writer, steps []shownStep) error {
	for _, s := range steps {
		line := fmt.Sprintf("  %s  %s by %s", s.At.Local().Format(moment), s.What, s.By)
		if s.Signature != "" {
			line += ", signature: " + s.Signature
		}
		if s.Note != "" {
			line += ", " + s.Note
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

type cardFindCommand struct {
	Person string `help:"Cards of this person (person_id of the registry)." placeholder:"PERSON" xor:"what" required:""`
	Card   string `help:"Cards with this identifier." placeholder:"UID" xor:"what" required:""`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (f *cardFindCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		var cards []access.Card
		if f.Person != "" {
			person, err := personByCode(ctx, d.pool, f.Person)
			if err != nil {
				return err
			}
			if cards, err = access.CardsOf(ctx, d.pool, person.ID); err != nil {
				return err
			}
		} else {
			uid, err := parseCard(f.Card)
			if err != nil {
				return err
			}
			if cards, err = access.CardsWithUID(ctx, d.pool, 0, uid); err != nil {
				return err
			}
		}
		shown, err := showCards(ctx, d.pool, cards)
		if err != nil {
			return err
		}
		if f.JSON {
			return printJSON(c.out, shown)
		}
		rows := make([][]any, 0, len(shown))
		for _, s := range shown {
			rows = append(rows, s.cells())
		}
		return table(c.out, cardColumns, rows)
	})
}

type cardShowCommand struct {
	ID   access.CardID `arg:"" help:"The card, as card find shows it."`
	JSON bool          `name:"json" help:"Print JSON."`
}

func (s *cardShowCommand) Run(ctx context.Context, c *console) error {
	return c.withCards(ctx, s.JSON, func(context.Context, pgx.Tx) (access.CardID, error) { return s.ID, nil })
}

type cardIssueCommand struct {
	signed
	holder
	newCard
	JSON bool `name:"json" help:"Print JSON."`
}

func (i *cardIssueCommand) Run(ctx context.Context, c *console) error {
	uid, err := parseCard(i.Card)
	if err != nil {
		return err
	}
	return c.withCards(ctx, i.JSON, func(ctx context.Context, tx pgx.Tx) (access.CardID, error) {
		next, err := i.find(ctx, tx)
		if err != nil {
			return 0, err
		}
		next.UID, next.Kind = uid, access.Kind(i.Kind)
		if next.ValidUntil, err = lastDay(ctx, tx, next.Organisation, i.Until); err != nil {
			return 0, err
		}
		if err := checkKind(ctx, tx, next.Kind); err != nil {
			return 0, err
		}
		return access.IssueCard(ctx, tx, next, i.actor(), time.Now())
	})
}

func checkKind(ctx context.Context, q pg.Querier, kind access.Kind) error {
	kinds, err := access.CardKinds(ctx, q)
	if err != nil {
		return err
	}
	var names []string
	for _, k := range kinds {
		if k == access.TemporaryCard {
			continue // lent, not issued
		}
		if k == kind {
			return nil
		}
		names = append(names, string(k))
	}
	return usageError{fmt.Errorf("--kind: %q is not one of %s; a temporary card is lent (zvonok card temporary)",
		kind, strings.Join(names, ", "))}
}

type cardTemporaryCommand struct {
	signed
	holder
	Card string `required:"" help:"The identifier of the card that is lent." placeholder:"UID"`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (l *cardTemporaryCommand) Run(ctx context.Context, c *console) error {
	uid, err := parseCard(l.Card)
	if err != nil {
		return err
	}
	return c.withCards(ctx, l.JSON, func(ctx context.Context, tx pgx.Tx) (access.CardID, error) {
		next, err := l.find(ctx, tx)
		if err != nil {
			return 0, err
		}
		next.UID = uid
		return access.LendCard(ctx, tx, next, l.actor(), time.Now())
	})
}

type cardHandOverCommand struct {
	signed
	ID        access.CardID `arg:"" help:"The card, as card find shows it."`
	Signature string        `required:"" help:"The mark of the signature, such as the number of the sheet and the line."`
	JSON      bool          `name:"json" help:"Print JSON."`
}

func (h *cardHandOverCommand) Run(ctx context.Context, c *console) error {
	return c.withCards(ctx, h.JSON, func(ctx context.Context, tx pgx.Tx) (access.CardID, error) {
		return h.ID, access.HandOver(ctx, tx, h.ID, h.actor(), h.Signature, time.Now())
	})
}

type cardBlockCommand struct {
	signed
	ID   access.CardID `arg:"" help:"The card, as card find shows it."`
	Note string        `help:"What happened."`
	JSON bool          `name:"json" help:"Print JSON."`
}

func (b *cardBlockCommand) Run(ctx context.Context, c *console) error {
	return c.withCards(ctx, b.JSON, func(ctx context.Context, tx pgx.Tx) (access.CardID, error) {
		return b.ID, access.BlockCard(ctx, tx, b.ID, b.actor(), b.Note, time.Now())
	})
}

type cardFoundCommand struct {
	signed
	ID   access.CardID `arg:"" help:"The card, as card find shows it."`
	JSON bool          `name:"json" help:"Print JSON."`
}

func (f *cardFoundCommand) Run(ctx context.Context, c *console) error {
	return c.withCards(ctx, f.JSON, func(ctx context.Context, tx pgx.Tx) (access.CardID, error) {
		return f.ID, access.FoundCard(ctx, tx, f.ID, f.actor(), time.Now())
	})
}

type cardReplaceCommand struct {
	signed
	ID    access.CardID `arg:"" help:"The card to be replaced, as card find shows it."`
	Card  string        `required:"" help:"The identifier of the new card." placeholder:"UID"`
	Kind  string        `help:"The kind of the new card; without it that of the old one."`
	Until string        `help:"The last day on which the new card works." placeholder:"YYYY-MM-DD"`
	JSON  bool          `name:"json" help:"Print JSON."`
}

func (r *cardReplaceCommand) Run(ctx context.Context, c *console) error {
	uid, err := parseCard(r.Card)
	if err != nil {
		return err
	}
	return c.withCards(ctx, r.JSON, func(ctx context.Context, tx pgx.Tx) (access.CardID, error) {
		if r.Kind != "" {
			if err := checkKind(ctx, tx, access.Kind(r.Kind)); err != nil {
				return 0, err
			}
		}
		old, err := access.FindCard(ctx, tx, r.ID)
		if err != nil {
			return 0, err
		}
		until, err := lastDay(ctx, tx, old.Organisation, r.Until)
		if err != nil {
			return 0, err
		}
		return access.ReplaceCard(ctx, tx, r.ID, uid, access.Kind(r.Kind), until, r.actor(), time.Now())
	})
}

type cardReturnCommand struct {
	signed
	ID   access.CardID `arg:"" help:"The card, as card find shows it."`
	JSON bool          `name:"json" help:"Print JSON."`
}

func (r *cardReturnCommand) Run(ctx context.Context, c *console) error {
	return c.withCards(ctx, r.JSON, func(ctx context.Context, tx pgx.Tx) (access.CardID, error) {
		return r.ID, access.ReturnCard(ctx, tx, r.ID, r.actor(), time.Now())
	})
}

type cardDestroyCommand struct {
	signed
	ID   access.CardID `arg:"" help:"The card, as card find shows it."`
	Note string        `help:"How, and by which act."`
	JSON bool          `name:"json" help:"Print JSON."`
}

func (d *cardDestroyCommand) Run(ctx context.Context, c *console) error {
	return c.withCards(ctx, d.JSON, func(ctx context.Context, tx pgx.Tx) (access.CardID, error) {
		return d.ID, access.DestroyCard(ctx, tx, d.ID, d.actor(), d.Note, time.Now())
	})
}
