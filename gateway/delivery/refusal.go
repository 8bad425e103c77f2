package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/carrier"
	"zvonok/gateway/subscription"
)

// RefusedBulk says by which codes an operator tells that a subscriber has
// refused bulk SMS (spec/practice.md): of an answer to submit_sm "0x412", of a
// receipt "err:069". There is no standard, so each operator's are settings.
type RefusedBulk map[string][]string

// refusedBulkReason is what the address, and the message, is marked with.
const refusedBulkReason = "refused bulk SMS"

// answer reports whether an operator's answer to any part of a message says so.
func (r RefusedBulk) answer(result carrier.Result) bool {
	codes := r[result.Operator]
	return len(codes) > 0 && slices.ContainsFunc(result.Parts, func(p carrier.Part) bool {
		return p.Answered && p.Status != 0 && slices.ContainsFunc(codes, func(code string) bool {
			return strings.EqualFold(code, fmt.Sprintf("%#x", uint32(p.Status)))
		})
	})
}

// receipt reports whether a receipt says so.
func (r RefusedBulk) receipt(m match) bool {
	return m.final && m.state != partDelivered && m.err != "" && slices.Contains(r[m.operator], "err:"+m.err)
}

// heedRefusals marks the phones of which receipts say so. A nil Desk does nothing.
func (d *Desk) heedRefusals(ctx context.Context, tx pgx.Tx, matches []match, now time.Time) error {
	if d == nil || len(d.RefusedBulk) == 0 {
		return nil
	}
	var refused []rowKey
	for _, m := range matches {
		if d.RefusedBulk.receipt(m) {
			refused = append(refused, rowKey{ID(m.deliveryID), m.deliveryAt})
		}
	}
	if len(refused) == 0 {
		return nil
	}
	// What the receipt says of the phone is the operator's way of writing it.
	ids, ats := split(refused)
	rows, err := tx.Query(ctx, `
		SELECT d.address FROM unnest($1::bigint[], $2::timestamptz[]) AS k (id, at)
		JOIN delivery.delivery AS d ON d.id = k.id AND d.at = k.at AND d.channel = 'sms'`, ids, ats)
	if err != nil {
		return fmt.Errorf("find who refused bulk SMS: %w", err)
	}
	addresses, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("find who refused bulk SMS: %w", err)
	}
	return optOutRefusers(ctx, tx, addresses, now)
}

// optOutRefusers marks phones whose owners have refused bulk SMS, as if they had
// said STOP: the next channel takes over, and the cabinet says so.
func optOutRefusers(ctx context.Context, tx pgx.Tx, addresses []string, now time.Time) error {
	slices.Sort(addresses)
	for _, address := range slices.Compact(addresses) { // a refusal is for good: there are few
		if err := OptOut(ctx, tx, subscription.SMS, address, refusedBulkReason, now); err != nil {
			return err
		}
	}
	return nil
}
