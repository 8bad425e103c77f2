package notice

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/access/door"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/subscription"
	"zvonok/ledger/money"
	"zvonok/templates"
)

// passWorker tells of passes.
type passWorker struct {
	river.WorkerDefaults[door.Passed]
	teller *Teller
}

// Work tells the passes of a job, together with those of other jobs that wait
// at the same moment.
func (w *passWorker) Work(ctx context.Context, job *river.Job[door.Passed]) error {
	_, err := w.teller.passes.Do(ctx, job.Args)
	return err
}

// tellPasses tells the passes of several jobs in one transaction.
func (t *Teller) tellPasses(ctx context.Context, jobs []door.Passed) ([]struct{}, error) {
	all := door.Passed{From: jobs[0].From, To: jobs[0].To}
	for _, job := range jobs {
		all.EventIDs = append(all.EventIDs, job.EventIDs...)
		if job.From.Before(all.From) {
			all.From = job.From
		}
		if job.To.After(all.To) {
			all.To = job.To
		}
	}
	return make([]struct{}, len(jobs)), t.tellAll(ctx, func(ctx context.Context, tx pgx.Tx) ([]news, error) {
		alarms, err := t.alarmNews(ctx, tx, all)
		if err != nil {
			return nil, err
		}
		passes, err := t.passNews(ctx, tx, all)
		return append(alarms, passes...), err
	})
}

// passNews reads passes that have not been told. A pass merged into another and
// one by a clock that was wrong by hours are no news.
func (t *Teller) passNews(ctx context.Context, tx pgx.Tx, job door.Passed) ([]news, error) {
	return t.readPasses(ctx, tx, job, `
		NOT p.merged AND NOT p.silent AND child.kind = 'pupil'
		AND NOT EXISTS (SELECT FROM notice.notice AS n
		                WHERE n.event_id = p.event_id AND n.event_at = p.at AND n.topic = 'pass')`)
}

// readPasses reads the passes of a job that a condition lets through, with
// everything their texts need, in one query.
func (t *Teller) readPasses(ctx context.Context, tx pgx.Tx, job door.Passed, condition string) ([]news, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.event_id, p.at, p.person_id, p.building_id, p.direction, p.kind,
			child.given_name, child.family_name, coalesce(c.given_name, ''), coalesce(c.family_name, ''),
			o.time_zone, extract(epoch FROM o.pass_life)::bigint, b.posted,
			o.id, extract(epoch FROM o.merge_wait)::bigint
		FROM door.pass AS p
		JOIN ledger.person AS child ON child.id = p.person_id
		JOIN ledger.organisation AS o ON o.id = p.organisation_id
		LEFT JOIN access.representative AS c ON c.id = p.companion_id
		LEFT JOIN ledger.account AS a ON a.person_id = p.person_id
		LEFT JOIN ledger.balance AS b ON b.account_id = a.id
		WHERE p.event_id = ANY ($1) AND p.at BETWEEN $2 AND $3 AND `+condition+`
		ORDER BY p.at, p.event_id`, job.EventIDs, job.From, job.To)
	if err != nil {
		return nil, fmt.Errorf("read passes to tell: %w", err)
	}
	facts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (news, error) {
		n := news{topic: subscription.Pass, priority: carrier.Urgent, again: delivery.Fresh}
		var (
			w         passWords
			kind      door.Kind
			direction door.Direction
			zone      string
			life      int64
			wait      int64
		)
		if err := row.Scan(&n.event, &n.at, &n.child, &n.family.building, &direction, &kind,
			&w.child.Given, &w.child.Family, &w.companion.Given, &w.companion.Family,
			&zone, &life, &w.balance, &n.org, &wait); err != nil {
			return n, err
		}
		var err error
		if n.zone, err = t.zones.load(zone); err != nil {
			return n, err
		}
		n.expires = n.at.Add(time.Duration(life) * time.Second)
		n.family.direction = int16(direction)
		n.mergeWait = time.Duration(wait) * time.Second
		w.in, w.admitted, w.at = direction == door.In, kind == door.ByStaff, n.at.In(n.zone)
		if kind == door.Led || w.admitted {
			// Who led a child, or that staff let it in, is said of that child alone.
			n.family = family{}
		}
		n.words = w
		return n, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read passes to tell: %w", err)
	}
	return facts, nil
}

// passWords is the text of a pass.
type passWords struct {
	child, companion templates.Name
	in, admitted     bool
	at               time.Time // in the organisation's zone
	balance          *money.Amount
}

// message tells of one child, or of siblings who came through one door.
func (w passWords) message(to reader, others []words) (string, *delivery.Letter) {
	p := templates.Pass{
		Children: []templates.Name{w.child}, In: w.in, At: w.at, Companion: w.companion, Admitted: w.admitted,
	}
	for _, sibling := range others {
		p.Children = append(p.Children, sibling.(passWords).child)
	}
	if w.in && to.meals {
		p.Balance = w.balance
	}
	if to.channel == subscription.Email {
		p.Links = to.links
		return "", letter(p.Mail(to.style.Language))
	}
	return p.SMS(to.style), nil
}

func letter(m templates.Mail) *delivery.Letter {
	return &delivery.Letter{Subject: m.Subject, Text: m.Text, HTML: m.HTML}
}
