"""Every address of the web process (the promise in DESIGN §2)."""

from django.contrib import admin
from django.urls import include, path, re_path

from webmail.views import acme_challenge, autoconfig, history, mta_sts
from webmail.views.app import app

urlpatterns = [
    path("", app, name="webmail"),
    path("mail/<str:mailbox_id>/", app, name="webmail_mailbox"),
    path("mail/<str:mailbox_id>/<str:thread_id>", app, name="webmail_thread"),
    path("mail/config-v1.1.xml", autoconfig.thunderbird),
    path(".well-known/acme-challenge/<str:token>", acme_challenge.answer),
    path(".well-known/mta-sts.txt", mta_sts.policy),
    path(".well-known/autoconfig/mail/config-v1.1.xml", autoconfig.thunderbird),
    re_path(r"^[Aa]uto[Dd]iscover/[Aa]uto[Dd]iscover\.xml$", autoconfig.outlook),
    path("settings/history/", history.own, name="history"),
    path("admin/trace/", history.administered, name="trace"),
    path("django-admin/", admin.site.urls),
    path("", include("accounts.urls")),
]
