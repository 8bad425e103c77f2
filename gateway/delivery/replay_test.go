package delivery_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/delivery"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

func (b *bench) replay(r delivery.Replay) delivery.ReplayReport {
	b.t.Helper()
	report, err := b.desk.Replay(b.t.Context(), b.pool, r, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return report
}

// Pain 12, the replay command: what an operator refused because its account was
// wrong goes out when that is put right, each message once.
func TestWhatAnOperatorFailedIsReplayedOnce(t *testing.T) {
	t.Parallel()
	wrong := smpptest.Behaviour{Refuse: map[string]smpp.Status{"7900": smpp.StatusInvalidSourceAddress}}
	b := setup(t, wrong)
	b.start()
	const count = 2500 // several batches
	drafts := make([]delivery.Draft, count)
	for i := range drafts {
		drafts[i] = draft(i)
	}
	b.enqueue(drafts...)
	b.await("the refusals", func() bool { return b.states()[delivery.Failed] == count })

	if got := b.replay(delivery.Replay{Operator: "box1", DryRun: true}); got.Failed != count || got.Stuck != 0 || len(got.LeftOut) != 0 {
		t.Errorf("a dry run says %+v", got)
	}
	if states := b.states(); states[delivery.Failed] != count {
		t.Fatalf("after a dry run the deliveries are %v", states)
	}
	b.boxes[0].SetBehaviour(smpptest.Behaviour{})
	var progress []int
	got := b.replay(delivery.Replay{Operator: "box1", Progress: func(done, of int) {
		if of != count {
			t.Errorf("progress of %d", of)
		}
		progress = append(progress, done)
	}})
	if got.Failed != count || fmt.Sprint(progress) != "[1000 2000 2500]" {
		t.Errorf("replayed %+v, progress %v", got, progress)
	}
	b.awaitDelivered(count)
	seen := map[string]int{}
	for _, sms := range b.boxes[0].Messages() {
		seen[sms.To]++
	}
	if len(seen) != count {
		t.Errorf("%d phones have a message", len(seen))
	}
	for _, n := range seen {
		if n != 1 {
			t.Fatalf("a phone has %d messages", n)
		}
	}
	// What has arrived is no candidate at all.
	if _, err := b.desk.Replay(t.Context(), b.pool, delivery.Replay{Operator: "box1"}, time.Now()); !errors.Is(err, delivery.ErrNothingOfOperator) {
		t.Errorf("a second replay: %v", err)
	}
}

func TestAReplayedMessageThatFailsAgainIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{Refuse: map[string]smpp.Status{"7900": smpp.StatusInvalidSourceAddress}})
	b.start()
	b.enqueue(draft(1))
	b.await("the refusal", func() bool { return b.states()[delivery.Failed] == 1 })
	b.replay(delivery.Replay{Operator: "box1"})
	b.await("the second refusal", func() bool { return b.states()[delivery.Failed] == 1 && b.boxes[0].Stats().Messages == 2 })
	if got := b.replay(delivery.Replay{Operator: "box1"}); got.Failed != 0 || got.LeftOut[delivery.LeftReplayed] != 1 {
		t.Errorf("%+v", got)
	}
}

// Each kind of message there is, with what a replay says of it. None that has
// arrived, or may have, is sent again.
func TestAReplayLeavesAloneWhatItMust(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	const failed = "state = 'failed', settled_at = now(), sending_at = now(), attempt = 1"
	part := func(state string) string {
		return `INSERT INTO delivery.part (delivery_id, delivery_at, attempt, number, count, operator, message_id, message_key,
			status, state, submitted_at) SELECT id, at, 1, 1, 2, 'box1', '', '', 0, '` + state + `', at FROM delivery.delivery WHERE id = $1`
	}
	for name, test := range map[string]struct {
		set    string // of the row
		also   string // another statement; $1 is the row's id
		job    string // state of its job; "" for none
		reason delivery.LeftOut
		failed int
		stuck  int
	}{
		"failed":                               {set: failed, failed: 1},
		"failed after a refused part":          {set: failed, also: part("refused"), failed: 1},
		"failed by a receipt":                  {set: failed, also: part("undelivered"), failed: 1},
		"failed over from another operator":    {set: failed + ", operator = 'box2', tried = '{box1,box2}'", failed: 1},
		"failed without a route, has one now":  {set: failed + ", operator = NULL, tried = '{}'", failed: 1},
		"queued and lost by its job":           {set: "attempt = 0", stuck: 1},
		"queued, its job given up":             {set: "attempt = 0", job: "discarded", stuck: 1},
		"queued for minutes":                   {set: "sending_at = now() - interval '5 minutes'", job: "available", stuck: 1},
		"queued, waits for its next attempt":   {set: "attempt = 1, sending_at = now() - interval '5 minutes'", job: "scheduled", stuck: 1},
		"queued just now":                      {set: "attempt = 0", job: "available", reason: delivery.LeftWaiting},
		"deferred to the end of quiet hours":   {set: "sending_at = now() - interval '5 minutes'", job: "scheduled", reason: delivery.LeftWaiting},
		"taken by a process":                   {set: "attempt = 0", job: "running", reason: delivery.LeftUnderWay},
		"on its way":                           {set: "state = 'sending'", job: "running", reason: delivery.LeftUnderWay},
		"unknown":                              {set: "state = 'unknown'", reason: delivery.LeftUnknown},
		"partial":                              {set: "state = 'partial'", reason: delivery.LeftPartly},
		"failed, a part delivered":             {set: failed, also: part("delivered"), reason: delivery.LeftPartly},
		"failed, a part never answered":        {set: failed, also: part("accepted"), reason: delivery.LeftPartly},
		"failed, a part on its way":            {set: failed, also: part("enroute"), reason: delivery.LeftPartly},
		"failed, a part nobody knows of":       {set: failed, also: part("unknown"), reason: delivery.LeftPartly},
		"recalled":                             {set: "state = 'recalled', recalled = true", reason: delivery.LeftRecalled},
		"failed, and recalled since":           {set: failed + ", recalled = true", reason: delivery.LeftRecalled},
		"stale":                                {set: "state = 'stale'", reason: delivery.LeftTooOld},
		"failed, past its life":                {set: failed + ", expires_at = now() - interval '1 second'", reason: delivery.LeftTooOld},
		"failed, replayed":                     {set: failed + ", replayed_at = now()", reason: delivery.LeftReplayed},
		"failed, the owner said STOP":          {set: failed, also: `INSERT INTO delivery.address (channel, address, opted_out_at) SELECT 'sms', address, now() FROM delivery.delivery WHERE id = $1`, reason: delivery.LeftOptedOut},
		"failed, the phone is dead":            {set: failed, also: `INSERT INTO delivery.address (channel, address, suppressed_at) SELECT 'sms', address, now() FROM delivery.delivery WHERE id = $1`, reason: delivery.LeftDead},
		"failed, the phone is in doubt":        {set: failed, also: `INSERT INTO access.representative (phone, family_name, given_name, doubt, doubted_at) SELECT address, 'A', 'B', 'sim', now() FROM delivery.delivery WHERE id = $1`, reason: delivery.LeftInDoubt},
		"failed, its recipient is gone":        {set: failed + ", representative_id = 77", reason: delivery.LeftNewNumber},
		"failed, a letter went in its place":   {set: failed + ", spare = true", also: `INSERT INTO delivery.spare (delivery_id, at, channel, address, patience, body, taken_at, next_id, next_at) SELECT id, at, 'email', 'a@example.org', '1 minute', '', now(), 5, now() FROM delivery.delivery WHERE id = $1`, reason: delivery.LeftOtherWay},
		"failed, and nothing could go instead": {set: failed + ", spare = true", also: `INSERT INTO delivery.spare (delivery_id, at, channel, address, patience, body, taken_at) SELECT id, at, 'email', 'a@example.org', '1 minute', '', now() FROM delivery.delivery WHERE id = $1`, failed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, table := range []string{"delivery.delivery", "delivery.part", "delivery.spare", "delivery.address", "river.river_job"} {
				b.exec(`DELETE FROM ` + table)
			}
			b.exec(`UPDATE access.representative SET doubt = NULL, doubted_at = NULL`)
			other := draft(2)
			stored := b.enqueue(draft(1), other)
			b.exec(`DELETE FROM river.river_job`)
			b.exec(`UPDATE delivery.delivery SET state = 'delivered' WHERE id = $1`, stored[1].ID)
			b.exec(`UPDATE delivery.delivery SET `+test.set+` WHERE id = $1`, stored[0].ID)
			if test.also != "" {
				b.exec(test.also, stored[0].ID)
			}
			if test.job != "" {
				args := delivery.SMSArgs{Operator: "box1", At: stored[0].At, IDs: []delivery.ID{stored[0].ID}}
				job, err := b.insert.Insert(t.Context(), args, nil)
				if err != nil {
					t.Fatal(err)
				}
				b.exec(`UPDATE river.river_job SET state = $2::river.river_job_state, scheduled_at = now() + interval '1 hour',
					finalized_at = CASE WHEN $2 = 'discarded' THEN now() END WHERE id = $1`, job.Job.ID, test.job)
			}
			want := map[delivery.LeftOut]int{}
			if test.reason != "" {
				want[test.reason] = 1
			}
			for _, dry := range []bool{true, false} {
				got := b.replay(delivery.Replay{Operator: "box1", DryRun: dry})
				if got.Failed != test.failed || got.Stuck != test.stuck || !maps.Equal(got.LeftOut, want) || got.DryRun != dry {
					t.Errorf("dry run %t: %+v", dry, got)
				}
			}
			// Exactly one job names what is sent now, and none what is not.
			var named int
			if err := b.pool.QueryRow(t.Context(), `
				SELECT count(*) FROM river.river_job, jsonb_array_elements_text(args->'ids') AS n (id)
				WHERE state = 'available' AND scheduled_at <= now() + interval '1 minute' AND n.id::bigint = $1`,
				stored[0].ID).Scan(&named); err != nil {
				t.Fatal(err)
			}
			if named != test.failed+test.stuck {
				t.Errorf("%d jobs that are due name it", named)
			}
		})
	}
}

// notices.md D7: money is not told at night, replayed or not; what does not
// live until the morning is left out.
func TestAReplayKeepsTheQuietHours(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	now := time.Now()
	var org int64
	// It is quiet from an hour ago until two hours from now, in the organisation's zone.
	if err := b.pool.QueryRow(t.Context(), `
		INSERT INTO ledger.organisation (code, kind, name, short_name, time_zone, quiet_from, quiet_until)
		SELECT 's', 'school', 'S', 'S', 'Asia/Kamchatka', ($1::timestamptz AT TIME ZONE 'Asia/Kamchatka')::time - interval '1 hour',
			($1::timestamptz AT TIME ZONE 'Asia/Kamchatka')::time + interval '2 hours' RETURNING id`, now).Scan(&org); err != nil {
		t.Fatal(err)
	}
	for topic, life := range map[string]time.Duration{"pass": time.Hour, "topup": 5 * time.Hour, "threshold": time.Hour} {
		d := draft(1)
		d.Topic, d.Expires = topic, now.Add(life)
		stored := b.enqueue(d)
		b.exec(`UPDATE delivery.delivery SET state = 'failed', organisation_id = $2 WHERE id = $1`, stored[0].ID, org)
	}
	b.exec(`DELETE FROM river.river_job`)
	got := b.replay(delivery.Replay{Operator: "box1"})
	if got.Failed != 2 || got.LeftOut[delivery.LeftQuiet] != 1 {
		t.Errorf("%+v", got)
	}
	rows, err := b.pool.Query(t.Context(), `SELECT (extract(epoch FROM scheduled_at - $1) / 3600)::int FROM river.river_job ORDER BY 1`, now)
	if err != nil {
		t.Fatal(err)
	}
	hours, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || fmt.Sprint(hours) != "[0 2]" {
		t.Errorf("they are due in %v hours, %v", hours, err)
	}
}

// A recall and a withdrawn consent hold for what has failed, too.
func TestWhatFailedAndWasRecalledSinceIsNotReplayed(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	b.enqueue(draft(1))
	withdrawn := draft(2)
	withdrawn.Representative = 5
	b.enqueue(withdrawn)
	b.exec(`UPDATE delivery.delivery SET state = 'failed'`)
	if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		unsent, err := delivery.UnsentTo(t.Context(), tx, 5, []string{withdrawn.Address}, time.Now())
		if err != nil || len(unsent) != 1 {
			return fmt.Errorf("unsent %v: %w", unsent, err)
		}
		return delivery.Withhold(t.Context(), tx, []delivery.Stored{unsent[0].Stored}, "withdrawn", time.Now())
	}); err != nil {
		t.Fatal(err)
	}
	b.recall(delivery.Filter{Topic: "pass"})
	if got := b.replay(delivery.Replay{Operator: "box1"}); got.Failed != 0 || got.LeftOut[delivery.LeftRecalled] != 2 {
		t.Errorf("%+v", got)
	}
}

// What was for an operator that is not in the settings any more goes by the
// route of today.
func TestMessagesOfAnOperatorThatIsGoneAreReplayedByTheirRoute(t *testing.T) {
	t.Parallel()
	b := setup(t, smpptest.Behaviour{})
	b.enqueue(draft(1), draft(2))
	b.exec(`UPDATE delivery.delivery SET operator = 'gone', tried = '{gone}', sending_at = now() - interval '1 hour'`)
	b.exec(`UPDATE river.river_job SET queue = 'sms_gone', args = jsonb_set(args, '{operator}', '"gone"')`)
	if got := b.replay(delivery.Replay{Operator: "gone"}); got.Stuck != 2 {
		t.Errorf("%+v", got)
	}
	b.start()
	b.awaitDelivered(2)
	if _, err := b.desk.Replay(t.Context(), b.pool, delivery.Replay{Operator: "nobody"}, time.Now()); !errors.Is(err, delivery.ErrNothingOfOperator) {
		t.Errorf("an unknown operator: %v", err)
	}
}
