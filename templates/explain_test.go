package templates

import (
	"strings"
	"testing"
	"time"
)

func exampleExplanation() Explanation {
	at := func(text string) time.Time {
		moment, err := time.Parse("15:04:05.0", text)
		if err != nil {
			panic(err)
		}
		return moment.AddDate(2026, 10, 21)
	}
	pointer := func(text string) *time.Time { moment := at(text); return &moment }
	letter := &ExplainedMessage{
		ID: 79, MadeAt: at("08:20:05.0"), Channel: "email", Address: "***@example.org", State: "sent", Expires: at("08:30:03.0"),
		Parts: []ExplainedPart{{Attempt: 1, Number: 1, Count: 1, By: "mail", State: "accepted", SubmittedAt: at("08:20:06.0")}},
	}
	return Explanation{
		ID: 1234, What: "pass", Number: 101, Device: "Главный вход", Building: "b-1", At: at("08:15:03.0"),
		ReceivedAt: at("08:15:04.2"), State: "acknowledged", Conflicts: 1,
		Recipients: []ExplainedRecipient{
			{Representative: 5, Child: "p-17", Topic: "pass", Channel: "sms", Verdict: "told", Message: &ExplainedMessage{
				ID: 77, MadeAt: at("08:15:04.5"), Channel: "sms", Address: "+7900*****01", State: "delivered",
				SettledAt: pointer("08:15:06.0"), Expires: at("08:30:03.0"), Siblings: 1,
				Parts: []ExplainedPart{{
					Attempt: 1, Number: 1, Count: 1, By: "mts", MessageID: "4A1F", State: "delivered",
					SubmittedAt: at("08:15:04.6"), DoneAt: pointer("08:15:06.0"),
				}},
			}},
			{Representative: 6, Child: "p-17", Topic: "pass", Channel: "sms", Verdict: "told", Message: &ExplainedMessage{
				ID: 78, MadeAt: at("08:15:04.5"), Channel: "sms", Address: "+7900*****02", State: "failed", Reason: "receipt undelivered 011",
				SettledAt: pointer("08:20:04.0"), Expires: at("08:30:03.0"), Resent: true, FellBackAt: pointer("08:20:05.0"), Next: letter,
			}},
			{Representative: 7, Child: "p-17", Topic: "pass", Verdict: "not_subscribed"},
			{Child: "p-18", Topic: "pass", Verdict: "no_listener"},
		},
	}
}

// "zvonok explain" in words a school secretary understands, in both languages.
func TestAnEventIsExplainedAsReviewed(t *testing.T) {
	t.Parallel()
	for _, l := range Languages() {
		golden(t, "explain."+string(l)+".golden", strings.Join(exampleExplanation().Lines(l), "\n")+"\n")
	}
}

func TestEveryWordOfAnExplanationIsInBothLanguages(t *testing.T) {
	t.Parallel()
	for _, list := range []bilingual{eventWords, eventStates, channelWords, topicWords, stateWords, partWords, verdictWords} {
		for key, words := range list {
			if words[0] == "" || words[1] == "" || strings.ContainsAny(words[1], "абвгдеёжзийклмнопрстуфхцчшщъыьэюя") {
				t.Errorf("%s: %q", key, words)
			}
		}
	}
}
