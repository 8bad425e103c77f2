package notice

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
)

// R25, R28, practice.md: who has applied electronically is told of the school's
// decision once, by the channels of the application, in his language, outside
// the quiet hours, and not where he has refused messages. The words name neither
// child nor school nor reason.
func TestAnApplicantIsToldOfTheDecisionByTheChannelsOfTheApplication(t *testing.T) {
	t.Parallel()
	const mother, grandmother = "79000000001", "79000000003" // she has a mailbox; the other reads English
	accepted, letter := "sms Заявление принято: Проход и питание. Подробности на сайте", "email Ваше заявление принято"
	for name, test := range map[string]struct {
		phone    string
		channels string
		refuse   bool
		before   string // SQL
		after    time.Duration
		want     []string
	}{
		"without a tick by SMS": {mother, `[]`, false, "", 0, []string{accepted}},
		"by both":               {mother, `["sms","email"]`, false, "", 0, []string{accepted, letter}},
		"by mail alone":         {mother, `["email"]`, false, "", 0, []string{letter}},
		"ticked, but there is no mailbox": {grandmother, `["email"]`, true, "", 0, []string{
			"sms Your application is refused: Pass and meals. The reason is on the site",
		}},
		"in Latin letters": {mother, `["sms"]`, true, `UPDATE access.representative SET translit = true`, 0, []string{
			"sms Zayavlenie otkloneno: Prokhod i pitanie. Prichina na sayte",
		}},
		"after STOP by mail": {
			mother, `["sms","email"]`, false,
			`INSERT INTO delivery.address (channel, address, opted_out_at) VALUES ('sms', '79000000001', now())`, 0,
			[]string{letter},
		},
		"after STOP not at all": {
			mother, `["sms"]`, false,
			`INSERT INTO delivery.address (channel, address, opted_out_at) VALUES ('sms', '79000000001', now())`, 0, nil,
		},
		"at night in the morning": {
			mother, `["sms"]`, false,
			`UPDATE ledger.organisation SET quiet_from = '08:00', quiet_until = '09:00'`, 0,
			[]string{accepted + ", not before 09:00"},
		},
		"a day late not at all": {mother, `["sms"]`, false, "", 25 * time.Hour, nil},
		"who is erased":         {mother, `["sms"]`, false, "UPDATE access.representative SET erased_at = now(), phone = NULL", 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			decisions := access.NewDecisions(b.jobs)
			var id access.PetitionID
			err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
				err := tx.QueryRow(t.Context(), `
					INSERT INTO access.petition (organisation_id, representative_id, kind, form, state, submitted_at)
					SELECT $1, r.id, 'companions', jsonb_build_object('reference', 'e', 'organisation', 's1', 'channels', $3::jsonb,
						'signed_on', '2026-11-20', 'children', jsonb_build_array(jsonb_build_object('person', 'masha', 'family_name', 'Петрова')),
						'applicant', jsonb_build_object('family_name', r.family_name, 'given_name', r.given_name, 'phone', '+' || r.phone,
							'email', 'one@example.org'),
						'recipients', jsonb_build_array(jsonb_build_object('family_name', 'Белова', 'given_name', 'Вера',
							'phone', '+79000000080', 'role', 'companion', 'born_on', '1990-02-03'))), 'submitted', $4
					  FROM access.representative r WHERE r.phone = $2 RETURNING id`,
					b.org, test.phone, test.channels, b.now.Add(-time.Hour)).Scan(&id)
				if err != nil {
					return err
				}
				by := access.ByStaff("teacher")
				if test.refuse {
					return decisions.Refuse(t.Context(), tx, b.org, id, "не ваш ребёнок", by, b.now)
				}
				_, _, err = decisions.Accept(t.Context(), tx, b.org, id, by, b.now)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			var announced int64
			if err := b.pool.QueryRow(t.Context(), `SELECT (args->>'petition')::bigint FROM river.river_job WHERE kind = 'petition_decided'`).
				Scan(&announced); err != nil || announced != int64(id) {
				t.Fatalf("announced %d, %v", announced, err)
			}
			if test.before != "" {
				b.exec(test.before)
			}
			b.now = b.now.Add(test.after)
			for range 2 { // a job may come again
				if err := b.teller.tellDecided(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			rows, err := b.pool.Query(t.Context(), `
				SELECT d.channel || ' ' || coalesce(l.subject, d.body) || coalesce(', not before ' || (
				           SELECT to_char(j.scheduled_at AT TIME ZONE 'Europe/Moscow', 'HH24:MI') FROM river.river_job j
				            WHERE j.state = 'scheduled' AND j.args->'ids' @> to_jsonb(d.id)), '')
				  FROM delivery.delivery d LEFT JOIN delivery.letter l ON l.delivery_id = d.id
				 WHERE d.topic = 'petition' ORDER BY d.channel DESC`)
			if err != nil {
				t.Fatal(err)
			}
			got, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil || fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("told %q, %v; want %q", got, err, test.want)
			}
		})
	}
}
