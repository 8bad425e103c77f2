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
	facts, err := t.readPasses(ctx, tx, job, `
		NOT p.merged AND NOT p.silent AND child.kind = 'pupil'
		AND NOT EXISTS (SELECT FROM notice.notice AS n
		                WHERE n.event_id = p.event_id AND n.event_at = p.at AND n.topic = 'pass')`)
	if err != nil {
		return nil, err
	}
	return t.holdBack(ctx, tx, facts)
}

// holdBack keeps "left" back for as long as its organisation waits for an entry
// to a sister building (spec/door.md), by a job that comes again then, and returns
// the news whose time has come.
func (t *Teller) holdBack(ctx context.Context, tx pgx.Tx, facts []news) ([]news, error) {
	now := t.now()
	held := map[time.Time]*door.Passed{} // by when they come again, to the second
	due := facts[:0]
	for _, n := range facts {
		if !n.heldUntil.After(now) {
			due = append(due, n)
			continue
		}
		again := n.heldUntil.Truncate(time.Second).Add(time.Second)
		job, ok := held[again]
		if !ok {
			job = &door.Passed{From: n.at, To: n.at}
			held[again] = job
		}
		job.EventIDs = append(job.EventIDs, int64(n.event))
		job.To = n.at // they come in the order of time
	}
	var params []river.InsertManyParams
	for again, job := range held {
		params = append(params, river.InsertManyParams{Args: *job, InsertOpts: &river.InsertOpts{ScheduledAt: again}})
	}
	if len(params) == 0 {
		return due, nil
	}
	if _, err := t.river.InsertManyFastTx(ctx, tx, params); err != nil {
		return nil, fmt.Errorf("hold back who has left: %w", err)
	}
	return due, nil
}

// readPasses reads the passes of a job that a condition lets through, with
// everything their texts need, in one query.
func (t *Teller) readPasses(ctx context.Context, tx pgx.Tx, job door.Passed, condition string) ([]news, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.event_id, p.at, p.person_id, p.building_id, p.direction, p.kind,
			child.given_name, child.family_name, coalesce(c.given_name, ''), coalesce(c.family_name, ''),
			o.time_zone, extract(epoch FROM o.pass_life)::bigint, b.posted,
			o.id, extract(epoch FROM o.merge_wait)::bigint,
			CASE WHEN p.direction = 2 THEN extract(epoch FROM o.leave_wait)::bigint ELSE 0 END,
			p.received_at <= p.at + o.pass_life,
			CASE WHEN p.direction = 2 AND o.leave_wait > interval '0' THEN EXISTS (
				SELECT FROM door.pass AS s
				WHERE s.person_id = p.person_id AND s.at > p.at AND s.at <= p.at + o.leave_wait
				  AND s.at BETWEEN $2 AND $3::timestamptz + interval '15 minutes'
				  AND s.direction = 1 AND s.organisation_id = p.organisation_id AND s.building_id <> p.building_id)
			ELSE false END
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
			leave     int64
			timely    bool
		)
		if err := row.Scan(&n.event, &n.at, &n.child, &n.family.building, &direction, &kind,
			&w.child.Given, &w.child.Family, &w.companion.Given, &w.companion.Family,
			&zone, &life, &w.balance, &n.org, &wait, &leave, &timely, &n.moved); err != nil {
			return n, err
		}
		var err error
		if n.zone, err = t.zones.load(zone); err != nil {
			return n, err
		}
		n.expires = n.at.Add(time.Duration(life) * time.Second)
		if leave := time.Duration(leave) * time.Second; leave > 0 && timely {
			// What is held back on purpose lives as much longer; what came late does not.
			n.heldUntil, n.expires = n.at.Add(leave), n.expires.Add(leave)
		}
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
