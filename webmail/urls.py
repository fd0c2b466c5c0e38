"""Every address of the web process (the promise in DESIGN §2)."""

from django.contrib import admin
from django.urls import include, path

from webmail.views.app import app

urlpatterns = [
    path("", app, name="webmail"),
    path("mail/<str:mailbox_id>/", app, name="webmail_mailbox"),
    path("mail/<str:mailbox_id>/<str:thread_id>", app, name="webmail_thread"),
    path("django-admin/", admin.site.urls),
    path("", include("accounts.urls")),
]
