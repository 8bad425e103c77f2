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
	evening := at("19:00:02.0")
	stages := []ExplainedStage{
		{Stage: "consent", Verdict: "passed"},
		{Stage: "right_to_know", Verdict: "passed", Role: "trusted"},
		{Stage: "subscription", Verdict: "passed"},
		{Stage: "address", Verdict: "passed"},
		{Stage: "freshness", Verdict: "passed"},
		{Stage: "quiet_hours", Verdict: "deferred", Until: pointer("08:20:00.0")},
		{Stage: "opt_out_and_health", Verdict: "passed"},
		{Stage: "fallback", Verdict: "next", Channel: "email"},
		{Stage: "cap", Verdict: "refused", Count: 32, Limit: 30},
		{Stage: "merge", Verdict: "joined", Others: 1},
		{Stage: "merge", Verdict: "merged", Others: 2},
		{Stage: "merge", Verdict: "waits", Until: pointer("08:16:04.0")},
		{Stage: "digest", Verdict: "kept", Digests: []string{"day", "week"}},
		{Stage: "text", Verdict: "not_asked"},
		{Stage: "route", Verdict: "refused", Why: "no_route"},
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
				Parts: []ExplainedPart{{
					Attempt: 2, Number: 1, Count: 1, By: "mts", MessageID: "4A20", State: "undelivered", Error: "011",
					SubmittedAt: at("08:20:01.0"), DoneAt: pointer("08:20:00.0"),
				}},
			}},
			{Representative: 7, Child: "p-17", Topic: "pass", Verdict: "not_subscribed"},
			{
				Representative: 8, Child: "p-17", Topic: "pass", Channel: "sms", Verdict: "capped", DecidedAt: at("08:15:04.5"), Stages: stages,
				Digests: []ExplainedDigest{
					{Kind: "day", Day: evening, Verdict: "told", MadeAt: &evening, Messages: []ExplainedMessage{*letter}},
					{Kind: "day", Day: evening, Verdict: "nothing", MadeAt: &evening},
					{Kind: "week"},
				},
			},
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

// A message that was kept back, or failed, after it was made says why in words.
func TestAMessageKeptBackSaysWhyInWords(t *testing.T) {
	t.Parallel()
	e := exampleExplanation()
	e.Recipients[0].Message.State, e.Recipients[0].Message.Reason = "recalled", "consent_expired"
	for l, want := range map[Language]string{RU: "(срок согласия истёк)", EN: "(the consent has run out)"} {
		if text := strings.Join(e.Lines(l), "\n"); !strings.Contains(text, want) || strings.Contains(text, "consent_expired") {
			t.Errorf("the explanation does not say %s:\n%s", want, text)
		}
	}
}

// What has words of its own for every stage and outcome: none is shown as a key.
func TestWhatAStageDecidedIsSaidInWords(t *testing.T) {
	t.Parallel()
	for key := range outcomeWords {
		stage, verdict, _ := strings.Cut(key, " ")
		for _, l := range Languages() {
			said := ExplainedStage{Stage: stage, Verdict: verdict, Count: 1, Limit: 30}.Say(l)
			if strings.Contains(said, "_") || strings.Contains(said, key) || strings.Contains(said, "%") {
				t.Errorf("%s in %s: %q", key, l, said)
			}
		}
	}
}

func TestEveryWordOfAnExplanationIsInBothLanguages(t *testing.T) {
	t.Parallel()
	for _, list := range []bilingual{
		eventWords, eventStates, channelWords, topicWords, stateWords, partWords, verdictWords,
		digestWords, roleWords, stageWords, outcomeWords,
	} {
		for key, words := range list {
			if words[0] == "" || words[1] == "" || strings.ContainsAny(words[1], "абвгдеёжзийклмнопрстуфхцчшщъыьэюя") {
				t.Errorf("%s: %q", key, words)
			}
		}
	}
}
