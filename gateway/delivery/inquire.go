package delivery

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
)

// Limits of asking operators what became of messages.
const (
	inquiriesAtOnce = 20               // outside of the windows, so few
	inquiryTime     = 5 * time.Second  // for one of them
	inquiriesTime   = 20 * time.Second // for those of one job; what is not asked by then stays as silent as it was
)

// inquiry is a part whose receipt is missing.
type inquiry struct {
	operator, messageID string
	address             phone.Number
}

// inquire asks the operators, by query_sm, what became of messages whose
// receipts are missing when their reader's patience is over, before they go to
// the next channel (smpp.md, Unknown outcomes). A final answer is stored as a
// receipt is. An operator that does not offer it, or that this process has no
// link to, changes nothing. A submit that was never answered has no id to ask
// by: of it only a late answer or a receipt can tell.
func (s *Sender) inquire(ctx context.Context, at time.Time, ids []int64) error {
	rows, err := s.pool.Query(ctx, `
		SELECT p.operator, p.message_id, d.address
		FROM delivery.delivery AS d
		JOIN delivery.spare AS s ON s.delivery_id = d.id AND s.at = d.at
		JOIN delivery.part AS p ON p.delivery_id = d.id AND p.submitted_at >= d.at - interval '1 day' AND p.attempt = d.attempt
		WHERE d.id = ANY ($1) AND d.at = $2 AND d.channel = 'sms' AND d.state IN ('sent', 'unknown') AND NOT d.recalled
		  AND d.expires_at > $3 AND s.taken_at IS NULL AND coalesce(d.sending_at, d.at) + s.patience <= $3
		  AND p.state IN ('accepted', 'enroute', 'unknown') AND p.message_id <> ''`, ids, at, s.now())
	if err != nil {
		return fmt.Errorf("look for missing receipts: %w", err)
	}
	missing, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i inquiry, err error) {
		err = row.Scan(&i.operator, &i.messageID, &i.address)
		return i, err
	})
	if err != nil {
		return fmt.Errorf("look for missing receipts: %w", err)
	}
	var (
		mu       sync.Mutex
		receipts []carrier.Receipt
		group    errgroup.Group
	)
	asking, stop := context.WithTimeout(ctx, inquiriesTime)
	defer stop()
	group.SetLimit(inquiriesAtOnce)
	for _, i := range missing {
		p, ok := s.pumps[i.operator]
		if !ok || asking.Err() != nil {
			continue
		}
		group.Go(func() error {
			one, stop := context.WithTimeout(asking, inquiryTime)
			defer stop()
			if state := p.exchange.Query(one, i.operator, i.messageID, 0); state.Verdict == carrier.Settled && state.State.Final() {
				mu.Lock()
				defer mu.Unlock()
				receipts = append(receipts, carrier.Receipt{
					Operator: i.operator, MessageID: i.messageID, Keys: []string{carrier.CanonicalID(i.messageID)},
					State: state.State, To: i.address, ReceivedAt: s.now(), Raw: "query_sm",
				})
			}
			return nil // silence is no failure
		})
	}
	_ = group.Wait()
	if len(receipts) == 0 || s.settler.receipts == nil {
		return nil
	}
	_, err = s.settler.receipts.store(ctx, receipts, s.now())
	return err
}
