package notice

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/templates"
)

// Limits of replies.
const (
	replyLife     = 10 * time.Minute // an answer nobody waits for any more is not sent
	answersPerDay = 10               // balances told to a phone a day (notices.md, Replies)
)

// Replier answers texts that people send to us: STOP and START at once, and
// anything else with the balance, as a dialled code does.
type Replier struct {
	pool *pgxpool.Pool
	desk *delivery.Desk
	now  func() time.Time
}

// NewReplier returns a Replier.
func NewReplier(pool *pgxpool.Pool, desk *delivery.Desk, now func() time.Time) *Replier {
	return &Replier{pool: pool, desk: desk, now: now}
}

// keyword is what a text asks for.
type keyword int

const (
	other keyword = iota
	stop
	start
)

// keywords are the words and their usual misspellings: typed in the other
// keyboard layout, in Latin letters, with a doubled or a lost letter.
var keywords = map[string]keyword{
	"СТОП": stop, "СТОПП": stop, "СТОПЬ": stop, "ТОП": stop, "СТП": stop, "CNJG": stop, "STOP": stop, "STOPP": stop,
	"STO": stop, "STP": stop, "ЫЕЩЗ": stop, "ОТПИСАТЬСЯ": stop, "ОТПИСКА": stop, "UNSUBSCRIBE": stop,
	"СТАРТ": start, "СТАР": start, "CNFHN": start, "START": start, "STRAT": start, "ЫЕФКЕ": start,
}

// lookalikes are Latin capitals that look like Cyrillic ones: СТОП typed as
// CTOП means what it looks like.
var lookalikes = strings.NewReplacer("C", "С", "T", "Т", "O", "О", "P", "Р", "A", "А")

// parseKeyword reads the first word of a text, whatever its case and the marks
// around it.
func parseKeyword(text string) keyword {
	words := strings.FieldsFunc(strings.ToUpper(text), func(r rune) bool {
		return strings.ContainsRune(" \t\r\n.,;:!?\"'«»()-*#", r)
	})
	if len(words) == 0 {
		return other
	}
	if k, ok := keywords[words[0]]; ok {
		return k
	}
	return keywords[lookalikes.Replace(words[0])]
}

// Take answers a batch of texts. It is the carrier's callback: the operator is
// acknowledged when it returns nil, so it may bring a text again; a repeated
// STOP changes nothing.
func (r *Replier) Take(ctx context.Context, batch []carrier.MO) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		now := r.now()
		var drafts []delivery.Draft
		for _, mo := range batch {
			if mo.From == "" {
				continue // a name or a short code: nobody to answer
			}
			draft, err := r.answer(ctx, tx, mo, now)
			if err != nil {
				return err
			}
			if draft != nil {
				drafts = append(drafts, *draft)
			}
		}
		_, err := r.desk.Enqueue(ctx, tx, now, drafts)
		return err
	})
}

func (r *Replier) answer(ctx context.Context, tx pgx.Tx, mo carrier.MO, now time.Time) (*delivery.Draft, error) {
	switch parseKeyword(mo.Text) {
	case stop:
		if err := delivery.OptOut(ctx, tx, subscription.SMS, string(mo.From), "stop", now); err != nil {
			return nil, err
		}
		style, err := styleOf(ctx, tx, mo.From)
		return reply(mo.From, templates.OptedOut{}.SMS(style), now), err
	case start:
		if err := delivery.OptIn(ctx, tx, subscription.SMS, string(mo.From)); err != nil {
			return nil, err
		}
		style, err := styleOf(ctx, tx, mo.From)
		return reply(mo.From, templates.OptedIn{}.SMS(style), now), err
	default:
		text, err := r.balance(ctx, tx, mo.From, now)
		if err != nil || text == "" {
			return nil, err
		}
		return reply(mo.From, text, now), nil
	}
}

// balance is the answer to any other text, or "" when the phone has had its
// number of answers for the day or may know of nobody.
func (r *Replier) balance(ctx context.Context, tx pgx.Tx, from phone.Number, now time.Time) (string, error) {
	children, err := access.ChildrenOf(ctx, tx, from, now)
	if err != nil || len(children) == 0 {
		return "", err
	}
	day := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	spent, err := delivery.Spend(ctx, tx, replies, []delivery.Use{{Day: day, Address: string(from), Count: 1}})
	if err != nil || spent[0] > answersPerDay {
		return "", err
	}
	ids := make([]ledger.PersonID, len(children))
	for i, child := range children {
		ids[i] = child.ID
	}
	balances, err := ledger.Balances(ctx, tx, ids)
	if err != nil {
		return "", err
	}
	visits, err := door.LastVisits(ctx, tx, ids, now)
	if err != nil {
		return "", err
	}
	style, err := styleOf(ctx, tx, from)
	if err != nil {
		return "", err
	}
	answer := templates.Balance{Now: now}
	for _, child := range children {
		line := templates.ChildBalance{Child: templates.Name{Given: child.GivenName, Family: child.FamilyName}}
		if child.Meals {
			line.Balance = balances[child.ID].Posted
		}
		if v, ok := visits[child.ID]; ok && child.Visits {
			if !v.FirstIn.IsZero() {
				line.Visit.In = v.FirstIn.In(v.Zone)
			}
			if !v.LastOut.IsZero() {
				line.Visit.Out = v.LastOut.In(v.Zone)
			}
			answer.Now = now.In(v.Zone)
		}
		answer.Children = append(answer.Children, line)
	}
	return answer.SMS(style), nil
}

// replies is the channel under which answers are counted apart from messages.
const replies subscription.Channel = "reply"

// Send answers a phone by SMS outside any fact: a dialogue whose screen was not
// shown.
func (r *Replier) Send(ctx context.Context, to phone.Number, text string) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		now := r.now()
		_, err := r.desk.Enqueue(ctx, tx, now, []delivery.Draft{*reply(to, text, now)})
		return err
	})
}

func reply(to phone.Number, text string, now time.Time) *delivery.Draft {
	return &delivery.Draft{
		Topic: "reply", Channel: subscription.SMS, Address: string(to), Priority: carrier.Urgent, Again: delivery.Never,
		Expires: now.Add(replyLife), Body: text,
	}
}

// styleOf is how a phone's owner reads; a stranger reads Russian.
func styleOf(ctx context.Context, tx pgx.Tx, number phone.Number) (templates.Style, error) {
	style := templates.Style{Language: templates.RU}
	rows, err := tx.Query(ctx, `SELECT language, translit FROM access.representative WHERE phone = $1`, number)
	if err != nil {
		return style, fmt.Errorf("read the language of a phone: %w", err)
	}
	if _, err := pgx.ForEachRow(rows, []any{&style.Language, &style.Latin}, func() error { return nil }); err != nil {
		return style, fmt.Errorf("read the language of a phone: %w", err)
	}
	return style, nil
}
