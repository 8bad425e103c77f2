package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/gateway/parent"
)

// testParents is a mother with a mobile application: she signs in by the code on
// her phone, sees her child, changes what she is told, and the next taps show it.
func testParents(t *testing.T, demo *program, dir string) {
	child, number := subscriber(t, demo.page(t).City, 4)
	given, _, _ := strings.Cut(child.Name, " ")
	inbox := func() []string {
		var texts []string
		for _, m := range demo.page(t).Inbox[number] {
			texts = append(texts, m.Text)
		}
		return texts
	}
	token := ""
	call := func(method, path string, body, answer any) int {
		t.Helper()
		var content io.Reader
		if body != nil {
			data, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			content = bytes.NewReader(data)
		}
		request, err := http.NewRequest(method, "http://"+demo.ready.HTTP+"/api/v1/parent"+path, content)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode >= 300 {
			t.Logf("%s %s: %d %s", method, path, response.StatusCode, text)
		} else if answer != nil {
			if err := json.Unmarshal(text, answer); err != nil {
				t.Fatalf("%s %s: %v: %s", method, path, err, text)
			}
		}
		return response.StatusCode
	}

	before := len(inbox())
	var asked parent.CodeAnswer
	if status := call("POST", "/code", parent.CodeWish{Phone: number}, &asked); status != http.StatusAccepted {
		t.Fatalf("asking for a code: %d", status)
	}
	eventually(t, "the code on the phone", func() bool { return len(inbox()) > before })
	code := regexp.MustCompile(`\b\d{6}\b`).FindString(inbox()[before])
	var session parent.SessionAnswer
	if status := call("POST", "/session", parent.CodeTyped{Request: asked.Request, Code: code}, &session); status != http.StatusOK {
		t.Fatalf("signing in with %q: %d", code, status)
	}
	token = session.Token
	var children parent.ChildrenView
	call("GET", "/children", nil, &children)
	if len(children.Children) != 1 || children.Children[0].GivenName != given || children.Children[0].Wallet == nil {
		t.Fatalf("the mother of %s sees %+v", given, children)
	}
	mine := fmt.Sprintf("/children/%d", children.Children[0].ID)

	seq := 1000
	tap := func(direction string) {
		t.Helper()
		seq++
		at := time.Now().Format(time.RFC3339Nano)
		status, answer := demo.upload(t, demo.ready.Keys["door"].Key, fmt.Sprintf(
			`{"sent_at":%q,"events":[{"seq":%d,"type":"pass","card":%q,"direction":%q,"at":%q}]}`, at, seq, child.Card, direction, at))
		if status != 200 || fmt.Sprint(answer["acknowledged"]) != fmt.Sprintf("[%d]", seq) {
			t.Fatalf("the door was answered %d %v", status, answer)
		}
	}
	told := func(what string) string {
		t.Helper()
		n := len(inbox())
		tap(what)
		eventually(t, "the SMS", func() bool { return len(inbox()) > n })
		return inbox()[n]
	}
	if text := told("in"); !strings.HasPrefix(text, "Вход ") {
		t.Errorf("she reads %q", text)
	}
	if status := call("PUT", "/settings", parent.SettingsView{Language: "en", Fallback: []parent.StepView{}}, nil); status != http.StatusOK {
		t.Errorf("choosing English: %d", status)
	}
	if text := told("out"); !strings.HasPrefix(text, "Exit ") {
		t.Errorf("after choosing English she reads %q", text)
	}
	var wishes parent.WishesView
	call("GET", mine+"/subscriptions", nil, &wishes)
	wishes.Subscriptions = slices.DeleteFunc(wishes.Subscriptions, func(s parent.SubscriptionView) bool { return s.Topic == "pass" })
	if status := call("PUT", mine+"/subscriptions", wishes, nil); status != http.StatusOK {
		t.Errorf("choosing less: %d", status)
	}
	n := len(inbox())
	tap("in")
	eventually(t, "the reason why nobody is told", func() bool {
		out, _, code := command(t, dir, "explain", "--json", fmt.Sprintf("%s:%d", demo.ready.Keys["door"].Name, seq))
		return code == 0 && strings.Contains(out, "not_subscribed")
	})
	if texts := inbox(); len(texts) != n {
		t.Errorf("she is told all the same: %q", texts[n:])
	}
	var visits parent.VisitsView
	call("GET", mine+"/visits", nil, &visits)
	if len(visits.Days) == 0 || len(visits.Days[0].Passes) < 3 {
		t.Errorf("the visits are %+v", visits)
	}
	var messages parent.MessagesView
	call("GET", "/messages", nil, &messages)
	if len(messages.Messages) < 2 || !strings.HasPrefix(messages.Messages[0].Text, "Exit ") {
		t.Errorf("her messages are %+v", messages)
	}
	var log parent.LogView
	call("GET", mine+"/log", nil, &log)
	if !slices.ContainsFunc(log.Views, func(l parent.LookView) bool { return l.You && l.What == "visits" }) {
		t.Errorf("who looked: %+v", log)
	}
	if status := call("DELETE", "/session", nil, nil); status != http.StatusNoContent {
		t.Errorf("signing out: %d", status)
	}
	if status := call("GET", "/children", nil, nil); status != http.StatusUnauthorized {
		t.Errorf("after signing out: %d", status)
	}
}
