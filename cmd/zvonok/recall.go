package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/delivery"
	"zvonok/gateway/notice"
)

const recallTimeout = 5 * time.Minute // thousands of cancel_sm at an operator's pace

type recallCommand struct {
	Template     string `help:"Only messages of this topic: pass, hot, buffet, subsidised, topup, threshold, alarm, absence, blocked, digest, reply, code, invitation."`
	Organisation string `help:"Only messages about this organisation (org_id of the registry)."`
	Operator     string `help:"Only messages that go by this operator."`
	Since        string `help:"Only messages made since then, as in 2026-11-22T08:15:00+03:00; default: the last 24 hours."`
	JSON         bool   `name:"json" help:"Print JSON."`
}

// recallRequest is what the command asks of the running gateway, which alone
// can cancel at the operators.
type recallRequest struct {
	Topic        string    `json:"topic"`
	Organisation string    `json:"organisation"`
	Operator     string    `json:"operator"`
	Since        time.Time `json:"since"`
}

func (r *recallCommand) Run(ctx context.Context, c *console) error {
	if r.Template == "" && r.Organisation == "" && r.Operator == "" {
		return usageError{errors.New("recall: say what to stop: --template, --organisation or --operator")}
	}
	if r.Template != "" && !slices.Contains(recallTopics(), r.Template) {
		return usageError{fmt.Errorf("--template: %q is no topic, and a recall stops whole topics: %s", r.Template, strings.Join(recallTopics(), ", "))}
	}
	ask := recallRequest{Topic: r.Template, Organisation: r.Organisation, Operator: r.Operator}
	if r.Since != "" {
		var err error
		if ask.Since, err = time.Parse(time.RFC3339, r.Since); err != nil {
			return usageError{fmt.Errorf("--since: %q is not a time such as 2026-11-22T08:15:00+03:00", r.Since)}
		}
	}
	config, err := c.settings()
	if err != nil {
		return err
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, recallTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+config.Admin.Listen+"/recall", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the gateway: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("no gateway answers at admin.listen = %q; is zvonok serve running with these settings? (%w)",
			config.Admin.Listen, err)
	}
	defer response.Body.Close()
	var answer struct {
		delivery.RecallReport
		Error string `json:"error"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("ask the gateway: %w", err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	if r.JSON {
		return printJSON(c.out, answer.RecallReport)
	}
	_, err = fmt.Fprintf(c.out, "stopped %d before they left, cancelled %d at operators, %d had left\n",
		answer.Stopped, answer.Cancelled, answer.Left)
	return err
}

// recallTopics are the topics of messages: those of news, and of what people asked for.
func recallTopics() []string {
	var list []string
	for _, topic := range notice.Topics() {
		list = append(list, string(topic))
	}
	return append(list, "digest", "reply", "code", "invitation", string(notice.Petition))
}

// recall stops messages; it is asked by the command of the same name.
func (a *App) recall(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, err error) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the asker is gone if this fails
	}
	w.Header().Set("Content-Type", "application/json")
	var ask recallRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&ask); err != nil {
		fail(http.StatusBadRequest, fmt.Errorf("read the request: %w", err))
		return
	}
	if ask.Operator != "" && !slices.Contains(a.exchange.Operators(), ask.Operator) {
		fail(http.StatusNotFound, fmt.Errorf("there is no operator %q; there are %s", ask.Operator, strings.Join(a.exchange.Operators(), ", ")))
		return
	}
	filter := delivery.Filter{Topic: ask.Topic, Operator: ask.Operator, Since: ask.Since}
	if ask.Organisation != "" {
		err := a.pool.QueryRow(r.Context(), `SELECT id FROM ledger.organisation WHERE code = $1`, ask.Organisation).
			Scan((*int64)(&filter.Organisation))
		if errors.Is(err, pgx.ErrNoRows) {
			fail(http.StatusNotFound, fmt.Errorf("there is no organisation %q", ask.Organisation))
			return
		}
		if err != nil {
			fail(http.StatusServiceUnavailable, fmt.Errorf("find the organisation: %w", err))
			return
		}
	}
	report, err := delivery.Recall(r.Context(), a.pool, a.exchange, filter, time.Now())
	if err != nil {
		fail(http.StatusServiceUnavailable, err)
		return
	}
	a.log.Warn("recall", "topic", ask.Topic, "organisation", ask.Organisation, "operator", ask.Operator,
		"stopped", report.Stopped, "cancelled", report.Cancelled, "left", report.Left)
	if err := json.NewEncoder(w).Encode(report); err != nil {
		a.log.Warn("answer a recall", "error", err)
	}
}
