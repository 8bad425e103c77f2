package reader

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger"
	"zvonok/ledger/pg"
)

// resolved is who a fact is about.
type resolved struct {
	person    ledger.PersonID
	card      access.CardID
	companion access.RepresentativeID
	by        ledger.PersonID
}

// resolve finds out who the facts are about, for the whole batch at once, and
// rejects those that are about nobody. It changes nothing, so repeats may be
// resolved too.
func (s *storing) resolve(ctx context.Context, tx pgx.Tx) error {
	s.people = make([]resolved, len(s.facts))
	for i, f := range s.facts {
		if f.rejection.Code != "" {
			s.results[i] = result{kind: resultRejected, rejection: f.rejection}
		}
	}
	if err := s.resolveCards(ctx, tx); err != nil {
		return err
	}
	return s.resolveCodes(ctx, tx)
}

func (s *storing) resolveCards(ctx context.Context, tx pgx.Tx) error {
	var (
		queries    []access.CardQuery
		cardOf     []int // the fact of each query
		companions []int // the fact of each query after those
	)
	query := func(f *fact, card cardRead) {
		queries = append(queries, access.CardQuery{
			Organisation: f.device.Organisation, UID: card.uid, Part: card.part, At: f.at,
		})
	}
	for i, f := range s.facts {
		if s.fine(i) && f.card.given {
			query(f, f.card)
			cardOf = append(cardOf, i)
		}
	}
	for i, f := range s.facts {
		if s.fine(i) && f.companion.uid != "" {
			query(f, f.companion)
			companions = append(companions, i)
		}
	}
	if len(queries) == 0 {
		return nil
	}
	holders, err := access.ResolveCards(ctx, tx, queries)
	if err != nil {
		return err
	}
	for k, i := range cardOf {
		s.takeHolder(i, holders[k])
	}
	for k, i := range companions {
		if holder := holders[len(cardOf)+k]; holder.Usable(s.facts[i].at) {
			s.people[i].companion = holder.Representative
		}
	}
	return nil
}

func (s *storing) takeHolder(i int, holder access.CardHolder) {
	f := s.facts[i]
	if f.event == deniedEvent {
		s.people[i].person = holder.Person // for staff to see, whatever the card's state
		return
	}
	if code, message := judgeCard(holder, f.at); code != "" {
		s.reject(i, code, message)
		return
	}
	s.people[i].person, s.people[i].card = holder.Person, holder.Card
}

// judgeCard says why a card cannot stand for a person at the moment it was used.
func judgeCard(holder access.CardHolder, at time.Time) (Code, string) {
	switch holder.State {
	case access.Unknown:
		return UnknownCard, "card: nobody in this organisation has it"
	case access.Ambiguous:
		return UnknownCard, "card: several people's cards look the same to this reader"
	case access.BlockedLost, access.BlockedReplaced:
		return CardBlocked, "card: it was lost or replaced"
	case access.Issued:
		return CardInactive, "card: it has not been handed over"
	case access.Returned, access.Destroyed:
		return CardExpired, "card: it was returned"
	}
	switch {
	case !holder.Usable(at):
		return CardExpired, "card: its time was over"
	case holder.Person == 0:
		return CompanionAlone, "card: a companion's, without the child's"
	}
	return "", ""
}

// resolveCodes finds the people of admitted events by the registry's ids.
func (s *storing) resolveCodes(ctx context.Context, tx pgx.Tx) error {
	var codes []string
	for i, f := range s.facts {
		if s.fine(i) && f.event == admittedEvent {
			codes = append(codes, f.person)
			if f.by != "" {
				codes = append(codes, f.by)
			}
		}
	}
	if len(codes) == 0 {
		return nil
	}
	people, err := readPeople(ctx, tx, codes)
	if err != nil {
		return err
	}
	for i, f := range s.facts {
		if !s.fine(i) || f.event != admittedEvent {
			continue
		}
		person, ok := people[f.person]
		if !ok || person.organisation != f.device.Organisation {
			s.reject(i, UnknownPerson, "person: nobody in this organisation has this id")
			continue
		}
		s.people[i].person = person.id
		// Who let the child in is worth knowing; that the child is in is worth more.
		if by, ok := people[f.by]; ok && by.organisation == f.device.Organisation {
			s.people[i].by = by.id
		}
	}
	return nil
}

type codedPerson struct {
	id           ledger.PersonID
	organisation ledger.OrganisationID
}

func readPeople(ctx context.Context, q pg.Querier, codes []string) (map[string]codedPerson, error) {
	rows, err := q.Query(ctx, `SELECT code, id, organisation_id FROM ledger.person WHERE code = ANY($1)`, codes)
	if err != nil {
		return nil, fmt.Errorf("find people by their codes: %w", err)
	}
	var (
		people = make(map[string]codedPerson, len(codes))
		code   string
		person codedPerson
	)
	_, err = pgx.ForEachRow(rows, []any{&code, &person.id, &person.organisation}, func() error {
		people[code] = person
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find people by their codes: %w", err)
	}
	return people, nil
}

// recordPasses hands fresh passes to the recorder.
func (s *storing) recordPasses(ctx context.Context, tx pgx.Tx) error {
	var taps []door.Tap
	for i, f := range s.each(passEvent, admittedEvent) {
		who := s.people[i]
		tap := door.Tap{
			Event: s.ids[i], Device: int64(f.device.ID), Organisation: f.device.Organisation,
			Building: f.device.BuildingID, Person: who.person, Card: who.card, Direction: f.direction,
			Kind: door.ByCard, Silent: f.silent, At: f.at, RawAt: f.rawAt, ReceivedAt: f.receivedAt,
		}
		switch {
		case f.event == admittedEvent:
			tap.Kind, tap.AdmittedBy = door.ByStaff, who.by
		case f.companion.given:
			tap.Kind, tap.Companion, tap.UnknownCompanion = door.Led, who.companion, who.companion == 0
		}
		taps = append(taps, tap)
	}
	_, err := s.in.recorder.Record(ctx, tx, s.now, taps)
	return err
}

// recordDenials hands fresh denials to the recorder.
func (s *storing) recordDenials(ctx context.Context, tx pgx.Tx) error {
	var denials []door.Denial
	for i, f := range s.each(deniedEvent) {
		denials = append(denials, door.Denial{
			Event: s.ids[i], Device: int64(f.device.ID), Organisation: f.device.Organisation,
			Building: f.device.BuildingID, Card: f.card.uid, Person: s.people[i].person, Direction: f.direction,
			Reason: f.reason, At: f.at, ReceivedAt: f.receivedAt,
		})
	}
	return s.in.recorder.Deny(ctx, tx, denials)
}
