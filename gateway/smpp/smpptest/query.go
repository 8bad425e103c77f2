package smpptest

import (
	"time"

	"zvonok/gateway/smpp"
)

// accepted is what query_sm and cancel_sm can ask about.
type accepted struct {
	doneAt    time.Time
	state     smpp.MessageState
	cancelled bool
}

// rememberState keeps what query_sm may ask for, of the last messages.
func (o *Operator) rememberState(id string, a accepted) {
	if o.cfg.Keep < 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.stateOrder) < o.cfg.Keep {
		o.stateOrder = append(o.stateOrder, id)
	} else {
		delete(o.states, o.stateOrder[o.stateNext])
		o.stateOrder[o.stateNext] = id
		o.stateNext = (o.stateNext + 1) % len(o.stateOrder)
	}
	o.states[id] = &a
}

func (o *Operator) handleQuery(in *smpp.Inbound, q *smpp.Query) {
	if o.Behaviour().NoQueries {
		o.reply(in, smpp.StatusInvalidCommandID, "")
		return
	}
	o.mu.Lock()
	a, ok := o.states[q.MessageID]
	var resp smpp.QueryResp
	if ok {
		resp = smpp.QueryResp{MessageID: q.MessageID, State: smpp.StateEnroute}
		switch {
		case a.cancelled:
			resp.State = smpp.StateDeleted
		case !in.ReceivedAt.Before(a.doneAt):
			resp.State = a.state
			resp.FinalDate = smpp.FormatTime(a.doneAt)
		}
	}
	o.mu.Unlock()
	if !ok {
		o.reply(in, smpp.StatusInvalidMessageID, "")
		return
	}
	if err := in.AnswerPDU(smpp.StatusOK, &resp); err != nil {
		o.log.Debug("answer not sent", "command", in.Header.Command.String(), "err", err)
	}
}

func (o *Operator) handleCancel(in *smpp.Inbound, c *smpp.Cancel) {
	o.mu.Lock()
	a, ok := o.states[c.MessageID]
	status := smpp.StatusOK
	switch {
	case !ok:
		status = smpp.StatusInvalidMessageID
	case !in.ReceivedAt.Before(a.doneAt):
		status = smpp.StatusCancelFailed
	default:
		a.cancelled = true
	}
	o.mu.Unlock()
	o.reply(in, status, "")
}
