package notice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/push"
	"zvonok/gateway/subscription"
	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/templates"
)

// Limits of digests.
const (
	digestBatch = 250            // recipients composed in one transaction: some tenths of a second
	digestReach = 12 * time.Hour // a digest that could not be made within this time after its moment is dropped
	digestLife  = 24 * time.Hour // until the next one

	weekDays = 7  // a week's digest begins on the day after the last one's Friday
	paceDays = 14 // days whose spending is the present pace: two school weeks

	// paceLeast is how many school days of those there must be for a forecast.
	paceLeast = 3
	// A pass or a meal of an earlier day that was reported within this time is looked for among all there are, as far
	// back as that; what was reported later is found in notice.late, where everything later than lateLeast is.
	lateReach = 72 * time.Hour
	mealReach = 13 * 24 * time.Hour
	lateLeast = 24 * time.Hour
	lateKept  = 31 * 24 * time.Hour // until any digest has told of it

	digestMemory = 14 // days: a recipient's last digest is looked for among those
	runsKept     = 60 // days

	// digestSettle is how long before its moment something must have come to be in a
	// digest: longer than any transaction that stores it takes, so that nothing comes
	// to light behind the digest's back, in neither this one nor the next.
	digestSettle = time.Minute
)

// digestTopic is the topic of digests as deliveries know it.
const digestTopic = "digest"

// digestKind is what a digest is of; the name is that of the subscription mode.
type digestKind string

const (
	daily  = digestKind(subscription.Day)
	weekly = digestKind(subscription.Week)
)

// literal writes a kind into a statement.
func (k digestKind) literal() string {
	if k == weekly {
		return "'week'"
	}
	return "'day'"
}

// RunDigests makes the digests that are due and returns when none is left. It is
// to be called every minute by every process. Recipients are composed in batches,
// a transaction each, which begins by taking the row of the run: two processes
// never compose the same batch, and a restart goes on where the last commit was.
//
// Between two batches it pauses for half as long as the last one took, so that
// composing leaves live messages a third even of the one connection it works on;
// what it queues has the lowest priority in queues of its own.
func (t *Teller) RunDigests(ctx context.Context) error {
	if err := t.planDigests(ctx); err != nil {
		return err
	}
	for {
		began := t.now()
		more, err := t.digestBatch(ctx)
		if err != nil || !more {
			return err
		}
		pause := time.NewTimer(t.now().Sub(began) / 2)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// planDigests notes which digests are due: of the day at the organisations'
// moment, of the week at that of Friday. An organisation that had its own today
// and changes the moment has the next one tomorrow; one that comes to a run that is
// at work or done sets it going from the beginning, for those who have had none. It
// also forgets what no digest asks for any more.
func (t *Teller) planDigests(ctx context.Context) error {
	now := t.now()
	err := pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) error {
		// Two processes that plan at once would not see each other's.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('notice.digest_run'))`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO notice.digest_run AS r (kind, day, moment, organisations)
			SELECT k.kind, d.day, m.moment, array_agg(o.id ORDER BY o.id)
			FROM ledger.organisation AS o
			CROSS JOIN LATERAL (
				SELECT ($1::timestamptz AT TIME ZONE o.time_zone)::date - n AS day FROM generate_series(0, 1) AS n
			) AS d
			CROSS JOIN LATERAL (SELECT (d.day + o.digest_at) AT TIME ZONE o.time_zone AS moment) AS m
			CROSS JOIN (VALUES ('day'), ('week')) AS k (kind)
			WHERE m.moment <= $1 AND m.moment > $1 - $2::interval AND (k.kind = 'day' OR extract(isodow FROM d.day) = 5)
			  AND NOT EXISTS (SELECT FROM notice.digest_run AS r
			                  WHERE r.kind = k.kind AND r.day = d.day AND o.id = ANY (r.organisations))
			GROUP BY k.kind, d.day, m.moment
			ON CONFLICT (kind, day, moment) DO UPDATE
			SET organisations = r.organisations || excluded.organisations, position = 0, finished_at = NULL`, now, digestReach); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM notice.digest_run WHERE day < ($1::timestamptz)::date - $2::int`, now, runsKept); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM notice.late WHERE known_at < $1`, now.Add(-lateKept))
		return err
	})
	if err != nil {
		return fmt.Errorf("plan digests: %w", err)
	}
	return nil
}

// digestRun is one digest that is being made.
type digestRun struct {
	kind     digestKind
	day      time.Time // midnight UTC
	moment   time.Time
	position access.RepresentativeID
	// since is the until of the digest before it, of those whose digest is being composed: the moment may be another one
	// today, or there may have been none yesterday.
	since time.Time
}

// first is the first day it tells of.
func (r digestRun) first() time.Time {
	if r.kind == weekly {
		return r.day.AddDate(0, 0, 1-weekDays)
	}
	return r.day
}

// until is by when something must have come to be told of.
func (r digestRun) until() time.Time { return r.moment.Add(-digestSettle) }

// usual is by when something must have come to be told of by the digest before it,
// where that is not known.
func (r digestRun) usual() time.Time {
	if r.kind == weekly {
		return r.until().AddDate(0, 0, -weekDays)
	}
	return r.until().AddDate(0, 0, -1)
}

// memory is how far back the digest before it is looked for.
func (r digestRun) memory() time.Time { return r.day.AddDate(0, 0, -digestMemory-1) }

// reach is how far back passes are looked for.
func (r digestRun) reach() time.Time {
	from, _ := r.widest()
	if r.since.Before(from) {
		from = r.since
	}
	return from.Add(-lateReach)
}

// mealsFrom is the first day of which meals are looked for.
func (r digestRun) mealsFrom() time.Time {
	from := r.first()
	if since := dateOf(r.since, time.UTC); since.Before(from) {
		from = since
	}
	return dateOf(from.Add(-mealReach), time.UTC).AddDate(0, 0, -1)
}

// digestBatch makes the digests of the next recipients of the oldest unfinished
// run; more is false when there is none, or another process is at it.
func (t *Teller) digestBatch(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	var (
		run      digestRun
		outcomes []digestOutcome
	)
	err = pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) error {
		now := t.now()
		err := tx.QueryRow(ctx, `
			SELECT kind, day, moment, position FROM notice.digest_run
			WHERE finished_at IS NULL AND moment > $1
			ORDER BY moment, kind LIMIT 1 FOR UPDATE SKIP LOCKED`, now.Add(-digestReach)).
			Scan(&run.kind, &run.day, &run.moment, &run.position)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		more = true
		who, err := recipients(ctx, tx, run)
		if err != nil {
			return err
		}
		if len(who) == 0 {
			_, err := tx.Exec(ctx, `UPDATE notice.digest_run SET finished_at = $4 WHERE kind = $1 AND day = $2 AND moment = $3`,
				run.kind, run.day, run.moment, now)
			return err
		}
		if outcomes, err = t.makeDigests(ctx, tx, run, who, now); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE notice.digest_run SET position = $4 WHERE kind = $1 AND day = $2 AND moment = $3`,
			run.kind, run.day, run.moment, who[len(who)-1])
		return err
	})
	if err != nil {
		return false, fmt.Errorf("make digests: %w", err)
	}
	for _, o := range outcomes {
		t.metrics.digests.WithLabelValues(string(run.kind), string(o.verdict)).Inc()
	}
	return more, nil
}

// recipients are the next ones who want such a digest, or whose phone has had
// its number of messages of late: the notice that said so promised the digest. Who
// has had it is left out by listChildren.
func recipients(ctx context.Context, tx pgx.Tx, run digestRun) ([]access.RepresentativeID, error) {
	// The mode stands in the statement, so that the index of digests is known to
	// hold all of its rows.
	rows, err := tx.Query(ctx, `
		SELECT representative_id FROM (
			(SELECT DISTINCT representative_id FROM subscription.subscription
			 WHERE mode = `+run.kind.literal()+` AND representative_id > $2 ORDER BY representative_id LIMIT $3)
			UNION
			(SELECT DISTINCT representative_id FROM notice.notice
			 WHERE verdict = 'capped' AND representative_id > $2 AND $1 = 'day' AND decided_at > $4 AND decided_at <= $5
			   AND event_at > $4::timestamptz - interval '1 day'
			 ORDER BY representative_id LIMIT $3)
		) AS r ORDER BY representative_id LIMIT $3`, run.kind, run.position, digestBatch, run.memory(), run.until())
	if err != nil {
		return nil, fmt.Errorf("find the recipients: %w", err)
	}
	who, err := pgx.CollectRows(rows, pgx.RowTo[access.RepresentativeID])
	if err != nil {
		return nil, fmt.Errorf("find the recipients: %w", err)
	}
	return who, nil
}

// digestOutcome is what became of one recipient's digest.
type digestOutcome struct {
	who        access.RepresentativeID
	verdict    Reason
	deliveries int
}

// listed is a recipient's child in a digest.
type listed struct {
	who      access.RepresentativeID
	child    ledger.PersonID
	channel  subscription.Channel // "": kept back from a phone, by whatever reaches the recipient
	name     templates.Name
	org      ledger.OrganisationID
	zone     *time.Location
	quiet    quietHours
	since    time.Time // by when something must have come to be told of by the recipient's digest before
	listener listener
}

// makeDigests composes and queues the digests of a batch of recipients. The
// number of statements does not depend on the number of recipients.
func (t *Teller) makeDigests(
	ctx context.Context, tx pgx.Tx, run digestRun, who []access.RepresentativeID, now time.Time,
) ([]digestOutcome, error) {
	since, err := toldUntil(ctx, tx, run, who)
	if err != nil {
		return nil, err
	}
	list, err := t.listChildren(ctx, tx, run, who, since, now)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	list, outcomes, err := allowed(ctx, tx, list, now)
	if err != nil {
		return nil, err
	}
	diaries, err := t.readDiaries(ctx, tx, run, list)
	if err != nil {
		return nil, err
	}
	drafts, owners, err := t.digestDrafts(ctx, tx, run, list, diaries, outcomes, now)
	if err != nil {
		return nil, err
	}
	if _, err := t.desk.Enqueue(ctx, tx, now, drafts); err != nil {
		return nil, err
	}
	for _, owner := range owners {
		outcomes[owner].deliveries++
		outcomes[owner].verdict = Told
	}
	done := make([]digestOutcome, 0, len(outcomes))
	for _, o := range outcomes {
		done = append(done, *o)
	}
	slices.SortFunc(done, func(a, b digestOutcome) int { return cmp.Compare(a.who, b.who) })
	return done, recordDigests(ctx, tx, run, done, now)
}

// toldUntil finds by when something must have come to be told of by the last digest
// that each recipient had, or might have had: of the runs of the days before, the
// last one that has come to the recipient and that one of their children's
// organisations was in. So what happens is in one digest of the day, whatever
// becomes of an organisation's moment, or of a gateway that was away at it.
func toldUntil(
	ctx context.Context, tx pgx.Tx, run digestRun, who []access.RepresentativeID,
) (map[access.RepresentativeID]time.Time, error) {
	rows, err := tx.Query(ctx, `
		SELECT w.id, coalesce(passed.until, own.known_until, $6)
		FROM unnest($1::bigint[]) AS w (id)
		LEFT JOIN LATERAL (
			SELECT d.day, d.known_until FROM notice.digest AS d
			WHERE d.representative_id = w.id AND d.kind = $2 AND d.day < $3 AND d.day >= $3::date - $4::int
			ORDER BY d.day DESC LIMIT 1
		) AS own ON true
		LEFT JOIN LATERAL (
			SELECT max(r.moment) - $5::interval AS until FROM notice.digest_run AS r
			WHERE r.kind = $2 AND r.day < $3 AND r.day >= $3::date - $4::int AND r.day > coalesce(own.day, '-infinity')
			  AND (r.finished_at IS NOT NULL OR r.position >= w.id)
			  AND r.organisations && (
				SELECT array_agg(c.organisation_id) FROM access.guardian AS g JOIN ledger.person AS c ON c.id = g.child_id
				WHERE g.representative_id = w.id)
			GROUP BY r.day ORDER BY r.day DESC LIMIT 1
		) AS passed ON true`, who, run.kind, run.day, digestMemory, digestSettle, run.usual())
	if err != nil {
		return nil, fmt.Errorf("find the digests before: %w", err)
	}
	since := make(map[access.RepresentativeID]time.Time, len(who))
	var (
		id    access.RepresentativeID
		until time.Time
	)
	if _, err := pgx.ForEachRow(rows, []any{&id, &until}, func() error { since[id] = until; return nil }); err != nil {
		return nil, fmt.Errorf("find the digests before: %w", err)
	}
	return since, nil
}

// readDiaries reads what the digests tell of, for each end of a digest before them:
// nearly always that is one for all.
func (t *Teller) readDiaries(ctx context.Context, tx pgx.Tx, run digestRun, list []listed) (map[int64]*diary, error) {
	bySince := map[int64][]listed{}
	for _, l := range list {
		bySince[l.since.UnixMicro()] = append(bySince[l.since.UnixMicro()], l)
	}
	diaries := make(map[int64]*diary, len(bySince))
	for since, list := range bySince {
		run.since = list[0].since
		var err error
		if diaries[since], err = t.readDiary(ctx, tx, run, list); err != nil {
			return nil, err
		}
	}
	return diaries, nil
}

// listChildren reads which children each recipient's digest is about, by which
// channels. A recipient whose children are in organisations with different
// moments gets one digest, when the last of them has come; who has had it is left out.
func (t *Teller) listChildren(
	ctx context.Context, tx pgx.Tx, run digestRun, who []access.RepresentativeID, since map[access.RepresentativeID]time.Time,
	now time.Time,
) ([]listed, error) {
	sinces := make([]time.Time, len(who))
	for i, id := range who {
		sinces[i] = since[id]
	}
	rows, err := tx.Query(ctx, `
		WITH wanted AS (
			SELECT DISTINCT representative_id, child_id, channel FROM subscription.subscription
			WHERE representative_id = ANY ($1) AND mode = `+run.kind.literal()+`
			UNION
			SELECT DISTINCT n.representative_id, n.child_id, ''
			FROM unnest($1::bigint[], $3::timestamptz[]) AS w (id, since)
			JOIN notice.notice AS n ON n.representative_id = w.id AND n.verdict = 'capped' AND n.decided_at > w.since
				AND n.decided_at <= $6 AND n.event_at > $7::timestamptz - interval '1 day'
			WHERE $2 = 'day'
		), listed AS (
			SELECT w.representative_id, w.child_id, w.channel, child.given_name, child.family_name, o.id AS organisation_id,
				o.time_zone, extract(epoch FROM o.quiet_from)::bigint AS quiet_from,
				extract(epoch FROM o.quiet_until)::bigint AS quiet_until,
				max(coalesce(r.moment, ($5::date + o.digest_at) AT TIME ZONE o.time_zone)) OVER (PARTITION BY w.representative_id)
					AS moment
			FROM wanted AS w
			JOIN ledger.person AS child ON child.id = w.child_id
			JOIN ledger.organisation AS o ON o.id = child.organisation_id
			LEFT JOIN notice.digest_run AS r ON r.kind = $2 AND r.day = $5 AND o.id = ANY (r.organisations)
		)
		SELECT representative_id, child_id, channel, given_name, family_name, organisation_id, time_zone, quiet_from, quiet_until
		FROM listed AS l
		WHERE moment <= $4
		  AND NOT EXISTS (SELECT FROM notice.digest AS d
		                  WHERE d.representative_id = l.representative_id AND d.kind = $2 AND d.day = $5)
		ORDER BY representative_id, given_name, child_id, channel`, who, run.kind, sinces, now, run.day, run.until(), slices.MinFunc(sinces, time.Time.Compare))
	if err != nil {
		return nil, fmt.Errorf("list the children: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (listed, error) {
		var (
			l        listed
			zone     string
			from, to int64
		)
		if err := row.Scan(&l.who, &l.child, &l.channel, &l.name.Given, &l.name.Family, &l.org, &zone, &from, &to); err != nil {
			return l, err
		}
		var err error
		l.quiet = quietHours{time.Duration(from) * time.Second, time.Duration(to) * time.Second}
		l.zone, err = t.zones.load(zone)
		l.since = since[l.who]
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the children: %w", err)
	}
	return list, nil
}

// allowed keeps the children of whom their recipient may know now, and begins an
// outcome for everybody. Where the consent is to visits alone, or to meals alone,
// the digest tells of those.
func allowed(
	ctx context.Context, tx pgx.Tx, list []listed, now time.Time,
) ([]listed, map[access.RepresentativeID]*digestOutcome, error) {
	children := make([]ledger.PersonID, 0, len(list))
	for _, l := range list {
		children = append(children, l.child)
	}
	slices.Sort(children)
	audience, err := access.Audience(ctx, tx, slices.Compact(children), now)
	if err != nil {
		return nil, nil, err
	}
	type pair struct {
		who   access.RepresentativeID
		child ledger.PersonID
	}
	var byPush []access.RepresentativeID
	for _, l := range list {
		if l.channel == subscription.Push {
			byPush = append(byPush, l.who)
		}
	}
	browsers, err := push.Reachable(ctx, tx, byPush)
	if err != nil {
		return nil, nil, err
	}
	listeners := make(map[pair]access.Listener, len(audience))
	for _, l := range audience {
		listeners[pair{l.Representative, l.Child}] = l
	}
	outcomes := map[access.RepresentativeID]*digestOutcome{}
	kept := list[:0]
	for _, l := range list {
		o := outcomes[l.who]
		if o == nil {
			o = &digestOutcome{who: l.who, verdict: Nothing}
			outcomes[l.who] = o
		}
		found, known := listeners[pair{l.who, l.child}]
		switch {
		case !known:
			o.verdict = NotRepresentative
		case found.Verdict != access.Yes:
			o.verdict = Reason(found.Verdict)
		case !found.Visits && !found.Meals:
			o.verdict = NotConsented
		default:
			l.listener = listener{Listener: found, browser: browsers[l.who]}
			kept = append(kept, l)
		}
	}
	return kept, outcomes, nil
}

// digestDrafts renders one letter per recipient for all children, and one SMS
// per child. The owners of the drafts are in their order.
func (t *Teller) digestDrafts(
	ctx context.Context, tx pgx.Tx, run digestRun, list []listed, diaries map[int64]*diary,
	outcomes map[access.RepresentativeID]*digestOutcome, now time.Time,
) (drafts []delivery.Draft, owners []access.RepresentativeID, err error) {
	type letterbox struct {
		who     access.RepresentativeID
		channel subscription.Channel
	}
	digests := map[letterbox]*templates.Digest{}
	first := map[letterbox]listed{} // whose organisation's quiet hours and name count
	about := map[letterbox][]ledger.PersonID{}
	var order []letterbox
	seen := map[letterbox]map[ledger.PersonID]bool{}
	for _, l := range list {
		child, happened := diaries[l.since.UnixMicro()].child(l, run)
		if !happened {
			continue
		}
		if l.channel == "" {
			l.channel = subscription.SMS
			if l.listener.Email != "" {
				l.channel = subscription.Email
			}
		}
		if addressOf(l.listener, l.channel) == "" {
			outcomes[l.who].verdict = NoAddress
			continue
		}
		box := letterbox{l.who, l.channel}
		if digests[box] == nil {
			digests[box] = &templates.Digest{From: run.first(), To: run.day}
			first[box], seen[box] = l, map[ledger.PersonID]bool{}
			order = append(order, box)
		}
		if !seen[box][l.child] {
			seen[box][l.child] = true
			digests[box].Children = append(digests[box].Children, child)
			about[box] = append(about[box], l.child)
		}
	}
	sick, err := barredBoxes(ctx, tx, order, func(b letterbox) (subscription.Channel, string) {
		return b.channel, addressOf(first[b].listener, b.channel)
	})
	if err != nil {
		return nil, nil, err
	}
	for i, box := range order {
		if sick[i] != "" {
			outcomes[box.who].verdict = sick[i]
			continue
		}
		l := first[box]
		draft := delivery.Draft{
			Representative: l.who, Organisation: l.org, Topic: digestTopic, Channel: box.channel,
			Address: addressOf(l.listener, box.channel), Priority: carrier.Bulk, Again: delivery.Later,
			NotBefore: l.quiet.until(now.In(l.zone)),
		}
		draft.Expires = draft.NotBefore.Add(digestLife)
		style := t.style(l.listener, box.channel)
		if box.channel == subscription.Email {
			digests[box].Links = t.linksFor(l.listener, box.channel)
			draft.Letter = letter(digests[box].Mail(style.Language))
			draft.Letter.Thread, draft.Children = thread(l.child, run.day), about[box]
			drafts, owners = append(drafts, draft), append(owners, box.who)
			continue
		}
		for i, text := range digests[box].SMS(style) { // one of each child
			draft.Body, draft.Children = text, about[box][i:i+1]
			drafts, owners = append(drafts, draft), append(owners, box.who)
		}
	}
	return drafts, owners, nil
}

// barredBoxes says of each of some addresses why nothing is sent there, "" for
// nothing against it.
func barredBoxes[T any](
	ctx context.Context, tx pgx.Tx, boxes []T, where func(T) (subscription.Channel, string),
) ([]Reason, error) {
	addresses := map[subscription.Channel][]string{}
	for _, b := range boxes {
		channel, address := where(b)
		addresses[channel] = append(addresses[channel], address)
	}
	reasons := make([]Reason, len(boxes))
	for channel, list := range addresses {
		state, err := delivery.HealthOf(ctx, tx, channel, list)
		if err != nil {
			return nil, err
		}
		for i, b := range boxes {
			if c, address := where(b); c == channel {
				switch h := state[address]; {
				case h.OptedOut:
					reasons[i] = OptedOut
				case h.Suppressed:
					reasons[i] = Unreachable
				case h.Doubted:
					reasons[i] = Unconfirmed
				}
			}
		}
	}
	return reasons, nil
}

func recordDigests(ctx context.Context, tx pgx.Tx, run digestRun, done []digestOutcome, now time.Time) error {
	who, verdicts, counts := make([]int64, len(done)), make([]string, len(done)), make([]int32, len(done))
	for i, o := range done {
		who[i], verdicts[i], counts[i] = int64(o.who), string(o.verdict), int32(o.deliveries)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO notice.digest (representative_id, kind, day, verdict, deliveries, made_at, known_until)
		SELECT who, $1, $2, verdict, deliveries, $3, $7
		FROM unnest($4::bigint[], $5::text[], $6::int[]) AS d (who, verdict, deliveries)`,
		run.kind, run.day, now, who, verdicts, counts, run.until())
	if err != nil {
		return fmt.Errorf("record digests: %w", err)
	}
	return nil
}

// lasts says for how many school days a balance lasts when each costs as much as
// those of the last two weeks did.
func lasts(balance, spent money.Amount, schoolDays int) templates.Forecast {
	if schoolDays < paceLeast || spent <= 0 {
		return templates.Forecast{}
	}
	if balance <= 0 {
		return templates.Forecast{Known: true}
	}
	return templates.Forecast{Known: true, SchoolDays: int(int64(balance) * int64(schoolDays) / int64(spent))}
}
