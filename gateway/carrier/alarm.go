package carrier

import (
	"time"

	"zvonok/gateway/smpp"
)

// Limits of alarms.
const (
	alarmPause      = time.Minute // between two alarms of one operator for one reason
	maxAlarmReasons = 256         // remembered; vendors have many codes
)

// alarm tells people, not more than once in alarmPause for one reason. o.mu is held.
func (o *operator) alarm(a Alarm, now time.Time) {
	if last, ok := o.alarms[a.Reason]; ok && now.Sub(last) < alarmPause {
		return
	}
	if len(o.alarms) >= maxAlarmReasons {
		clear(o.alarms)
	}
	o.alarms[a.Reason] = now
	a.Operator, a.At = o.cfg.Name, now
	o.log.Error("operator alarm", "reason", a.Reason, "class", string(a.Class), "status", a.Status.String(),
		"delivery", a.Delivery)
	o.x.metrics.alarms.WithLabelValues(o.cfg.Name).Inc()
	if report := o.x.cfg.Alarm; report != nil {
		o.results.push(func() { report(a) })
	}
}

// Alarm is something about an operator that a person should look at.
type Alarm struct {
	Operator string
	Reason   string // short, from a closed list but for vendors' codes
	Class    Class
	Status   smpp.Status
	Delivery int64  // the message it came up with; 0 for none
	Text     string // more about it, without personal data
	// PDU is the submit that was found wrong, or that an unknown code answered. It holds a phone and a text: it is for
	// the eyes of staff, never for a log.
	PDU []byte
	At  time.Time
}
