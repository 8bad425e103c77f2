package delivery

import (
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
)

// detours are messages that go by another operator than the one they were for:
// the next of their route that was not tried yet and that may be taken.
type detours struct {
	moved     map[ID]bool
	ids       []int64 // of one length: the messages, their months and their operators
	ats       []time.Time
	operators []string
	jobs      map[detourJob][]ID
}

// detourJob is what the messages of one job have in common.
type detourJob struct {
	operator string
	at       time.Time
	priority carrier.Priority
}

// detours finds the detours of messages, of which rows tell id, at, address,
// tried and priority. A message without one is not among them.
func (d *Desk) detours(rows pgx.Rows, mayTake func(operator string) bool) (detours, error) {
	var (
		found    = detours{moved: map[ID]bool{}, jobs: map[detourJob][]ID{}}
		key      rowKey
		address  phone.Number
		tried    []string
		priority carrier.Priority
	)
	_, err := pgx.ForEachRow(rows, []any{&key.id, &key.at, &address, &tried, &priority}, func() error {
		for _, operator := range d.route(address) {
			if slices.Contains(tried, operator) || !mayTake(operator) {
				continue
			}
			job := detourJob{operator, key.at.UTC(), priority}
			found.jobs[job] = append(found.jobs[job], key.id)
			found.moved[key.id] = true
			found.ids, found.ats = append(found.ids, int64(key.id)), append(found.ats, key.at)
			found.operators = append(found.operators, operator)
			break
		}
		return nil
	})
	return found, err
}

// params are the jobs that send them.
func (f detours) params() []river.InsertManyParams {
	params := make([]river.InsertManyParams, 0, len(f.jobs))
	for job, ids := range f.jobs {
		params = append(params, river.InsertManyParams{
			Args:       SMSArgs{Operator: job.operator, At: job.at, IDs: ids},
			InsertOpts: &river.InsertOpts{Queue: smsQueue(job.operator, job.priority), Priority: int(job.priority)},
		})
	}
	return params
}
