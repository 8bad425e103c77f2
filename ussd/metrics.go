package ussd

import (
	"github.com/prometheus/client_golang/prometheus"
)

// ending says how a dialogue ended. The set is closed, being a metric label; "" means that it goes on.
type ending string

const (
	endedFinished ending = "finished" // we gave the last answer
	endedLeft     ending = "left"     // the person pressed "0" on the first screen
	endedWrong    ending = "wrong"    // too many answers that were no key
	endedLong     ending = "long"     // more steps than any person makes
	endedAborted  ending = "aborted"  // the person hung up, or the network did
	endedRefused  ending = "refused"  // the operator refused our answer
	endedReplaced ending = "replaced" // the phone dialled anew
	endedExpired  ending = "expired"  // nothing was heard for the link's time
	endedEvicted  ending = "evicted"  // it made room for a newer one
	endedLate     ending = "late"     // the menu took too long
	endedFailed   ending = "failed"   // the menu failed, or we were too busy
)

func endings() []ending {
	return []ending{
		endedFinished, endedLeft, endedWrong, endedLong, endedAborted, endedRefused, endedReplaced,
		endedExpired, endedEvicted, endedLate, endedFailed,
	}
}

// ignoring says why a message got no answer.
type ignoring string

const (
	ignoredRepeat   ignoring = "repeat"   // the gateway said it twice
	ignoredEarly    ignoring = "early"    // an input while we were still thinking
	ignoredStale    ignoring = "stale"    // of a dialogue that was replaced
	ignoredFlood    ignoring = "flood"    // over the limit of its phone
	ignoredOverload ignoring = "overload" // over the limit of its link
	ignoredNoPhone  ignoring = "no_phone" // the address is no subscriber number
	ignoredUnclear  ignoring = "unclear"  // an operation the profile does not know
)

func ignorings() []ignoring {
	return []ignoring{
		ignoredRepeat, ignoredEarly, ignoredStale, ignoredFlood, ignoredOverload, ignoredNoPhone, ignoredUnclear,
	}
}

// Metrics are the counters of a Server.
type Metrics struct {
	open, waiting prometheus.Gauge

	events    *prometheus.CounterVec
	answers   *prometheus.CounterVec
	said      *prometheus.CounterVec
	ended     *prometheus.CounterVec
	ignored   *prometheus.CounterVec
	attached  *prometheus.CounterVec
	refused   *prometheus.CounterVec
	unwritten *prometheus.CounterVec
	followed  *prometheus.CounterVec
	foreign   prometheus.Counter
	seconds   *prometheus.HistogramVec
}

// NewMetrics registers the counters. The series of a link appear, at zero, when a Server with that link is made.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"link"}, labels...))
		registerer.MustRegister(c)
		return c
	}
	m := &Metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ussd_dialogues_open", Help: "Dialogues open.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zvonok_ussd_steps_waiting", Help: "Answers waiting for a worker.",
		}),
		events:    counter("zvonok_ussd_events_total", "Messages of phones by what they are.", "event"),
		answers:   counter("zvonok_ussd_answers_total", "Pages written, by whether they close the dialogue.", "end"),
		said:      counter("zvonok_ussd_said_total", "Texts of the engine's own instead of a screen.", "text"),
		ended:     counter("zvonok_ussd_dialogues_ended_total", "Dialogues ended, by how.", "how"),
		ignored:   counter("zvonok_ussd_ignored_total", "Messages without an answer, by why.", "why"),
		attached:  counter("zvonok_ussd_attached_total", "Inputs with an unknown session id given to their phone's dialogue."),
		refused:   counter("zvonok_ussd_refused_total", "Pages the operator refused."),
		unwritten: counter("zvonok_ussd_unwritten_total", "Pages for which the operator had no link."),
		followed:  counter("zvonok_ussd_followed_total", "Answers that were not shown and went by SMS."),
		foreign: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zvonok_ussd_foreign_total", Help: "Messages of senders that may not speak for a phone.",
		}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "zvonok_ussd_answer_seconds", Help: "From the message of a phone to its answer being written.",
			Buckets:                        []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 100,
		}, []string{"link"}),
	}
	registerer.MustRegister(m.open, m.waiting, m.foreign, m.seconds)
	return m
}

// linkMetrics are the series of one link, looked up once.
type linkMetrics struct {
	events                                 map[kind]prometheus.Counter
	answers                                map[string]prometheus.Counter
	said                                   map[saying]prometheus.Counter
	ended                                  map[ending]prometheus.Counter
	ignored                                map[ignoring]prometheus.Counter
	attached, refused, unwritten, followed prometheus.Counter
	seconds                                prometheus.Observer
}

func (m *Metrics) link(name string) *linkMetrics {
	l := &linkMetrics{
		events:    map[kind]prometheus.Counter{},
		answers:   map[string]prometheus.Counter{},
		said:      map[saying]prometheus.Counter{},
		ended:     map[ending]prometheus.Counter{},
		ignored:   map[ignoring]prometheus.Counter{},
		attached:  m.attached.WithLabelValues(name),
		refused:   m.refused.WithLabelValues(name),
		unwritten: m.unwritten.WithLabelValues(name),
		followed:  m.followed.WithLabelValues(name),
		seconds:   m.seconds.WithLabelValues(name),
	}
	for k, label := range map[kind]string{begin: "begin", input: "input", confirm: "confirm", abort: "abort"} {
		l.events[k] = m.events.WithLabelValues(name, label)
	}
	for _, end := range []string{"yes", "no"} {
		l.answers[end] = m.answers.WithLabelValues(name, end)
	}
	for what, label := range map[saying]string{
		sayLater: "later", sayExpired: "expired", sayTooMany: "too_many", sayBye: "bye",
	} {
		l.said[what] = m.said.WithLabelValues(name, label)
	}
	for _, how := range endings() {
		l.ended[how] = m.ended.WithLabelValues(name, string(how))
	}
	for _, why := range ignorings() {
		l.ignored[why] = m.ignored.WithLabelValues(name, string(why))
	}
	return l
}
