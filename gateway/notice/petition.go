package notice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/access"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/templates"
)

// Petition is the topic of what became of an electronic application. Who has made
// it is told, whatever he subscribes to.
const Petition subscription.Topic = "petition"

// petitionLife is how long a decision is news; from then on it stands in the cabinet.
const petitionLife = 24 * time.Hour

// decidedWorker tells applicants what schools have decided.
type decidedWorker struct {
	river.WorkerDefaults[access.Decided]
	teller *Teller
}

// Work tells of a decision.
func (w *decidedWorker) Work(ctx context.Context, job *river.Job[access.Decided]) error {
	return w.teller.tellDecided(ctx, job.Args.Petition)
}

// tellDecided sends word of a decision by the channels that the application names,
// as far as they take messages, outside the school's quiet hours. It needs no
// consent, which a refused application does not give: it answers who has asked,
// and names neither child nor school nor reason.
func (t *Teller) tellDecided(ctx context.Context, id access.PetitionID) error {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	err := pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) error {
		now := t.now()
		p, who, err := access.DecisionToTell(ctx, tx, id, now)
		if errors.Is(err, access.ErrNoPetition) || errors.Is(err, access.ErrNoRepresentative) {
			return nil
		}
		if err != nil || !now.Before(p.DecidedAt.Add(petitionLife)) {
			return err
		}
		organisations, err := ledger.Organisations(ctx, tx, []ledger.OrganisationID{p.Organisation})
		if err != nil {
			return err
		}
		o := organisations[p.Organisation]
		quiet := quietHours{time.Duration(o.QuietFrom), time.Duration(o.QuietUntil)}
		draft := delivery.Draft{
			Representative: who.ID, Organisation: p.Organisation, Topic: string(Petition), Priority: carrier.Normal,
			Again: delivery.Later, Expires: now.Add(petitionLife),
		}
		if until := quiet.until(now.In(o.Location)); until.After(now) {
			draft.NotBefore, draft.Expires = until, until.Add(petitionLife)
		}
		drafts, err := t.decisionDrafts(ctx, tx, p, who, draft)
		if err != nil || len(drafts) == 0 {
			return err
		}
		_, err = t.desk.Enqueue(ctx, tx, now, drafts)
		return err
	})
	if err != nil {
		return fmt.Errorf("tell of the decision on petition %d: %w", id, err)
	}
	return nil
}

// decisionDrafts is a draft of the decision for each channel that takes it.
func (t *Teller) decisionDrafts(
	ctx context.Context, tx pgx.Tx, p access.Petition, who access.Representative, draft delivery.Draft,
) (drafts []delivery.Draft, err error) {
	text := templates.Decision{Accepted: p.State == "accepted"}
	style := templates.Style{Language: templates.Language(who.Language), Texts: t.texts()}
	for _, channel := range []subscription.Channel{subscription.SMS, subscription.Email} {
		address := string(who.Phone)
		if channel == subscription.Email {
			address = who.Email
		}
		// As on the paper, no tick is the tick of SMS; nor is a letter sent to nowhere.
		ticked := slices.Contains(p.Form.Channels, string(channel))
		if channel == subscription.SMS && (len(p.Form.Channels) == 0 || who.Email == "") {
			ticked = true
		}
		if !ticked || address == "" {
			continue
		}
		health, err := delivery.HealthOf(ctx, tx, channel, []string{address})
		if err != nil {
			return nil, err
		}
		if h := health[address]; h.OptedOut || h.Suppressed || h.Doubted {
			continue
		}
		draft.Channel, draft.Address, draft.Body, draft.Letter = channel, address, "", nil
		if channel == subscription.Email {
			text.Links = t.links(address)
			draft.Letter = letter(text.Mail(style.Language))
		} else {
			style.Latin = who.Translit
			draft.Body = text.SMS(style)
		}
		drafts = append(drafts, draft)
	}
	return drafts, nil
}
