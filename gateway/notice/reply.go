package notice

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

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
	replyLife      = 10 * time.Minute // an answer nobody waits for any more is not sent
	answersPerDay  = 10               // answers to a phone a day, confirmations included (notices.md, Replies)
	strangersADay  = 1                // answers to a phone that belongs to nobody: two machines must not talk for ever
	longestKeyword = 32               // letters; what is longer is no word of ours
)

// Replier answers texts that people send to us: STOP and START at once, and
// anything else with the balance, as a dialled code does.
type Replier struct {
	pool  *pgxpool.Pool
	desk  *delivery.Desk
	texts func() *templates.Texts
	now   func() time.Time
	// Silence is after how long without a sign of life a phone counts as possibly another's (access.Hear); 0 is never.
	Silence time.Duration
}

// NewReplier returns a Replier. Texts are the texts of the moment; nil means the
// built-in ones.
func NewReplier(pool *pgxpool.Pool, desk *delivery.Desk, texts func() *templates.Texts, now func() time.Time) *Replier {
	if texts == nil {
		texts = templates.Builtin
	}
	return &Replier{pool: pool, desk: desk, texts: texts, now: now}
}

// keyword is what a text asks for.
type keyword int

const (
	other keyword = iota
	stop
	start
)

// keywords are the words and their usual misspellings: typed in the other
// keyboard layout, in Latin letters, with a doubled, a lost or a misplaced letter,
// and what people write who do not know the word.
var keywords = map[string]keyword{
	"СТОП": stop, "СТОПП": stop, "СТТОП": stop, "СТООП": stop, "СТОПЬ": stop, "ТОП": stop, "СТП": stop, "СОТП": stop,
	"ТСОП": stop, "СТПО": stop, "CNJG": stop, "СТОПСМС": stop, "СТОПSMS": stop,
	"STOP": stop, "STOPP": stop, "STTOP": stop, "STOOP": stop, "STO": stop, "STP": stop, "SOTP": stop, "TSOP": stop,
	"STPO": stop, "ЫЕЩЗ": stop, "STOPSMS": stop,
	"ОТПИСАТЬСЯ": stop, "ОТПИСАТЬ": stop, "ОТПИСКА": stop, "ОТПИШИТЕ": stop, "ОТКАЗ": stop, "UNSUBSCRIBE": stop, "UNSUB": stop,
	"OTKAZ": stop, "OTPISKA": stop,
	"СТАРТ": start, "СТАР": start, "СТАРТТ": start, "СТРАТ": start, "САТРТ": start, "СТААРТ": start, "CNFHN": start,
	"START": start, "STRAT": start, "STAR": start, "STARTT": start, "STAART": start, "ЫЕФКЕ": start,
}

// lookalikes are Latin capitals that look like Cyrillic ones: СТОП typed as
// CTOП means what it looks like.
var lookalikes = strings.NewReplacer("C", "С", "T", "Т", "O", "О", "P", "Р", "A", "А")

// parseKeyword reads the first word of a text, whatever its case and the marks
// around it.
func parseKeyword(text string) keyword {
	words := strings.FieldsFunc(strings.ToUpper(head(text, 4*longestKeyword)), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	if len(words) == 0 {
		return other
	}
	if k, ok := keywords[words[0]]; ok {
		return k
	}
	return keywords[lookalikes.Replace(words[0])]
}

// head returns the first n code points of a text.
func head(text string, n int) string {
	for i := range text {
		if n--; n < 0 {
			return text[:i]
		}
	}
	return text
}

// Take answers a batch of texts. It is the carrier's callback: the operator is
// acknowledged when it returns nil, so it may bring a text again; a repeated
// STOP changes nothing. The receipts that its gateway asked for are stored, too,
// and the stored parts of long texts are deleted.
func (r *Replier) Take(ctx context.Context, batch []carrier.MO) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		batch, err := delivery.ClaimTexts(ctx, tx, batch)
		if err != nil {
			return err
		}
		now := r.now()
		var drafts []delivery.Draft
		var owed []carrier.Owed
		for _, mo := range batch {
			owed = append(owed, mo.Owed...)
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
		if err := delivery.Owe(ctx, tx, owed); err != nil {
			return err
		}
		_, err = r.desk.Enqueue(ctx, tx, now, drafts)
		return err
	})
}

func (r *Replier) answer(ctx context.Context, tx pgx.Tx, mo carrier.MO, now time.Time) (*delivery.Draft, error) {
	style, err := r.styleOf(ctx, tx, mo.From)
	if err != nil {
		return nil, err
	}
	recycled, err := delivery.Recycled(ctx, tx, mo.From)
	if err != nil {
		return nil, err
	}
	heard, err := access.Hear(ctx, tx, access.Heard{Phone: mo.From, Silence: r.Silence, Dead: recycled, At: now})
	if err != nil {
		return nil, err
	}
	if heard.Raised {
		if err := delivery.StopInDoubt(ctx, tx, mo.From, now); err != nil {
			return nil, err
		}
	}
	keyword := parseKeyword(mo.Text)
	if (recycled || heard.Doubt != "") && keyword != stop {
		// START, too: it must not bring somebody else's news to life.
		return r.within(ctx, tx, mo.From, templates.Unknown{}.SMS(style), strangersADay, now)
	}
	switch keyword {
	case stop:
		health, err := delivery.HealthOf(ctx, tx, subscription.SMS, []string{string(mo.From)})
		if err != nil {
			return nil, err
		}
		if err := delivery.OptOut(ctx, tx, subscription.SMS, string(mo.From), "stop", now); err != nil {
			return nil, err
		}
		if health[string(mo.From)].OptedOut {
			return nil, nil // confirmed before, and asked for no more
		}
		return r.within(ctx, tx, mo.From, templates.OptedOut{}.SMS(style), answersPerDay, now)
	case start:
		if err := delivery.OptIn(ctx, tx, subscription.SMS, string(mo.From)); err != nil {
			return nil, err
		}
		return r.within(ctx, tx, mo.From, templates.OptedIn{}.SMS(style), answersPerDay, now)
	}
	children, err := access.ChildrenOf(ctx, tx, mo.From, now)
	if err != nil {
		return nil, err
	}
	if len(children) == 0 {
		return r.within(ctx, tx, mo.From, templates.Unknown{}.SMS(style), strangersADay, now)
	}
	text, err := balance(ctx, tx, children, style, now)
	if err != nil {
		return nil, err
	}
	draft, err := r.within(ctx, tx, mo.From, text, answersPerDay, now)
	if err != nil || draft == nil {
		return nil, err
	}
	views := make([]access.View, len(children))
	for i, child := range children {
		views[i] = access.View{
			Who: access.ByRepresentative(child.Representative), Child: child.ID, What: "balance", Channel: access.Reply, At: now,
		}
	}
	return draft, access.LogView(ctx, tx, views)
}

// within makes an answer, or none when the phone has had its number of them for
// the day, which is that of its children's organisation.
func (r *Replier) within(
	ctx context.Context, tx pgx.Tx, to phone.Number, text string, perDay int, now time.Time,
) (*delivery.Draft, error) {
	places, err := delivery.Places(ctx, tx, replies, perDay, []delivery.Use{{Address: string(to), Topic: replyTopic, Leaves: now}})
	if err != nil || places[0].Held {
		return nil, err
	}
	return reply(to, text, now), nil
}

// balance tells of the children of a phone what their consents cover.
func balance(
	ctx context.Context, tx pgx.Tx, children []access.Child, style templates.Style, now time.Time,
) (string, error) {
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
	answer := templates.Balance{Now: now}
	for _, child := range children {
		line := templates.ChildBalance{
			Child: templates.Name{Given: child.GivenName, Family: child.FamilyName}, NoMoney: !child.Meals,
		}
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

// replyTopic is the topic of answers as deliveries know it.
const replyTopic = "reply"

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
		Topic: replyTopic, Channel: subscription.SMS, Address: string(to), Priority: carrier.Urgent, Again: delivery.Never,
		Expires: now.Add(replyLife), Body: text,
	}
}

// styleOf is how a phone's owner reads; a stranger reads Russian.
func (r *Replier) styleOf(ctx context.Context, tx pgx.Tx, number phone.Number) (templates.Style, error) {
	style := templates.Style{Language: templates.RU, Texts: r.texts()}
	rows, err := tx.Query(ctx, `SELECT language, translit FROM access.representative WHERE phone = $1`, number)
	if err != nil {
		return style, fmt.Errorf("read the language of a phone: %w", err)
	}
	if _, err := pgx.ForEachRow(rows, []any{&style.Language, &style.Latin}, func() error { return nil }); err != nil {
		return style, fmt.Errorf("read the language of a phone: %w", err)
	}
	return style, nil
}
