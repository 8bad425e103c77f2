package phones

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// Aggregator is the other way a phone's dialogue reaches the gateway: over HTTP, in the convention of Africa's Talking
// (contract.md section 7), by somebody who stands between the operator and us. The zero value has none.
type Aggregator struct {
	Link   string // the last part of POST /ussd/http/LINK
	Secret string
}

// maxAnswer bounds what is read of the gateway's answer, in octets.
const maxAnswer = 4 << 10

// aggregator keeps the sessions of an Aggregator.
type aggregator struct {
	Aggregator
	client  *http.Client
	gateway string
	code    string

	mu       sync.Mutex
	serial   int
	sessions map[string]*session // by phone
}

// session is an open one; its inputs so far are said again with each call.
type session struct {
	id     string
	code   string // as dialled, with a star or a hash in front
	inputs []string
}

// errNoDialogue tells a person what to do.
var errNoDialogue = errors.New("no dialogue is open; dial a code such as *377*888#")

// ask says to the gateway what a phone dialled or typed, and returns the screen.
func (a *aggregator) ask(ctx context.Context, number, text string) (Screen, error) {
	a.mu.Lock()
	open := a.sessions[number]
	switch dialled := strings.HasPrefix(text, "*") || strings.HasPrefix(text, "#"); {
	case dialled:
		a.serial++
		open = &session{id: fmt.Sprintf("page-%d", a.serial), code: text[:1] + strings.TrimPrefix(a.code, "*")}
		a.sessions[number] = open
		// What was dialled beyond the code is the first input.
		if beyond := strings.TrimPrefix(text, strings.TrimSuffix(open.code, "#")); beyond != text {
			if beyond = strings.Trim(beyond, "*#"); beyond != "" {
				open.inputs = strings.Split(beyond, "*")
			}
		}
	case open == nil:
		a.mu.Unlock()
		return Screen{}, errNoDialogue
	default:
		open.inputs = append(open.inputs, text)
	}
	form := url.Values{
		"sessionId": {open.id}, "phoneNumber": {number}, "serviceCode": {open.code}, "networkCode": {"99999"},
		"text": {strings.Join(open.inputs, "*")},
	}
	a.mu.Unlock()
	answer, err := a.call(ctx, form)
	if err != nil {
		a.forget(number, open)
		return Screen{}, err
	}
	screen := Screen{Text: answer[len("CON "):], End: strings.HasPrefix(answer, "END ")}
	if screen.End {
		a.forget(number, open)
	}
	return screen, nil
}

// hangUp tells the gateway that the person closed the session.
func (a *aggregator) hangUp(ctx context.Context, number string) error {
	a.mu.Lock()
	open := a.sessions[number]
	a.mu.Unlock()
	if open == nil {
		return nil
	}
	a.forget(number, open)
	_, err := a.call(ctx, url.Values{
		"sessionId": {open.id}, "phoneNumber": {number}, "serviceCode": {open.code}, "status": {"Incomplete"},
	})
	return err
}

func (a *aggregator) forget(number string, open *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions[number] == open {
		delete(a.sessions, number)
	}
}

// call posts a form; the answer of a dialogue begins with "CON " or "END ".
func (a *aggregator) call(ctx context.Context, form url.Values) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.gateway+"/ussd/http/"+url.PathEscape(a.Link),
		strings.NewReader(form.Encode()))
	if err != nil {
		return "", fmt.Errorf("call the gateway: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Authorization", "Bearer "+a.Secret)
	response, err := a.client.Do(request)
	if err != nil {
		return "", fmt.Errorf("call the gateway: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	answer := string(body)
	switch {
	case err != nil:
		return "", fmt.Errorf("read the gateway's answer: %w", err)
	case response.StatusCode == http.StatusNoContent && form.Has("status"):
		return "", nil
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("the gateway answered %s: %s", response.Status, strings.TrimSpace(answer))
	case !strings.HasPrefix(answer, "CON ") && !strings.HasPrefix(answer, "END "):
		return "", fmt.Errorf("the gateway's answer begins with neither CON nor END: %.20q", answer)
	}
	return answer, nil
}
