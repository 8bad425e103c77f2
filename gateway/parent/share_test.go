package parent_test

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"zvonok/gateway/parent"
	"zvonok/gateway/subscription"
)

// Parents share connections with doors and tills: whatever the rush, they hold a
// third of them, and who would wait for long is told to come again.
func TestParentsLeaveDoorsTheirConnections(t *testing.T) {
	w := newWorld(t)
	mother := w.signIn(olga)
	tx, err := w.pool.Begin(t.Context())
	w.must(err)
	_, err = tx.Exec(t.Context(), `LOCK TABLE access.session`)
	w.must(err)
	statuses := make(chan int, 20)
	for range cap(statuses) {
		go func() { statuses <- w.send(mother.request(http.MethodGet, "/me", nil)).status }()
	}
	// The eight connections of the pool allow two; all others give up in time.
	for range cap(statuses) - 2 {
		if status := <-statuses; status != http.StatusServiceUnavailable {
			t.Errorf("somebody who cannot be served is answered %d", status)
		}
	}
	w.must(tx.Rollback(t.Context()))
	for range 2 {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("the one whose turn it was is answered %d", status)
		}
	}
}

// The words of the document are those of the package that owns them.
func TestTheDocumentKnowsEveryTopicChannelAndMode(t *testing.T) {
	t.Parallel()
	words := func(field string) []string {
		f, ok := reflect.TypeFor[parent.SubscriptionView]().FieldByName(field)
		if !ok {
			t.Fatal(field)
		}
		return strings.Split(f.Tag.Get("enum"), ",")
	}
	same := func(field string, known []string) {
		slices.Sort(known)
		if got := words(field); !slices.Equal(slices.Sorted(slices.Values(got)), known) {
			t.Errorf("%s: the document has %v, the package %v", field, got, known)
		}
	}
	var topics, channels, modes []string
	for _, topic := range subscription.Topics() {
		topics = append(topics, string(topic))
	}
	for _, channel := range subscription.Channels() {
		channels = append(channels, string(channel))
	}
	for _, mode := range subscription.Modes() {
		modes = append(modes, string(mode))
	}
	same("Topic", topics)
	same("Channel", channels)
	same("Mode", modes)
}
