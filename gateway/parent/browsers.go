package parent

import (
	"context"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/gateway/push"
)

// BrowsersView are the browsers that show one's notifications.
type BrowsersView struct {
	Key      string        `json:"key" doc:"The applicationServerKey with which a page subscribes (RFC 8292)."`
	Browsers []BrowserView `json:"browsers" nullable:"false" doc:"The last registered first; at most ten."`
}

// BrowserView is one of them.
type BrowserView struct {
	ID         int64      `json:"id"`
	Device     string     `json:"device" example:"Firefox, Windows"`
	Registered time.Time  `json:"registered_at"`
	Used       *time.Time `json:"used_at,omitempty" doc:"The last message that its service took."`
}

// BrowserWish registers a browser: its PushSubscription as toJSON gives it.
type BrowserWish struct {
	Endpoint string      `json:"endpoint" maxLength:"1024" doc:"An address of a known push service."`
	Keys     BrowserKeys `json:"keys"`
	Device   string      `json:"device,omitempty" maxLength:"200" doc:"What the browser is called in the list."`
	// Expiration is part of toJSON and says nothing that the service's answers do not.
	Expiration *int64 `json:"expirationTime,omitempty" nullable:"true"`
}

// BrowserKeys are with what only the browser can read.
type BrowserKeys struct {
	P256dh string `json:"p256dh" maxLength:"128"`
	Auth   string `json:"auth" maxLength:"128"`
}

func (s routes) browsers() {
	show(s, route{
		method: http.MethodGet, path: "/browsers", id: "list-browsers", summary: "The browsers that show your notifications",
	}, func(ctx context.Context, v visitor, _ *struct{}) (BrowsersView, error) {
		browsers, err := push.List(ctx, s.pool, v.session.Representative.ID)
		view := BrowsersView{Key: s.push.PublicKey(), Browsers: make([]BrowserView, len(browsers))}
		for i, b := range browsers {
			view.Browsers[i] = BrowserView{int64(b.ID), b.Device, b.Registered, b.Used}
		}
		return view, err
	})
	do(s, route{
		method: http.MethodPost, path: "/browsers", id: "register-browser", summary: "Let a browser show your notifications",
		text: "A page may call it at every visit. Which news come this way is chosen by the channel push of the subscriptions.",
	}, func(ctx context.Context, v visitor, in *struct{ Body BrowserWish }) error {
		you, err := v.known()
		if err != nil {
			return err
		}
		return s.write(ctx, func(tx pgx.Tx) error {
			return s.push.Register(ctx, tx, you.ID, push.Subscription{
				Endpoint: in.Body.Endpoint, P256dh: in.Body.Keys.P256dh, Auth: in.Body.Keys.Auth, Device: in.Body.Device,
			}, v.now)
		})
	})
	do(s, route{
		method: http.MethodDelete, path: "/browsers/{browser}", id: "remove-browser", summary: "Take a browser off the list",
	}, func(ctx context.Context, v visitor, in *struct {
		Browser string `path:"browser" maxLength:"32"`
	},
	) error {
		browser, err := id[push.BrowserID](in.Browser)
		if err != nil {
			return err
		}
		found, err := push.RemoveID(ctx, s.pool, v.session.Representative.ID, browser)
		if err == nil && !found {
			err = errNothing
		}
		return err
	})
}
