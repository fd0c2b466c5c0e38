"""Sign-in and security pages: allauth's views, only those that make sense where nobody signs up."""

from allauth.account import views
from django.urls import include, path

from accounts.views import app_passwords

urlpatterns = [
    path("login/", views.login, name="account_login"),
    path("login/disabled/", views.account_inactive, name="account_inactive"),
    path("login/again/", views.reauthenticate, name="account_reauthenticate"),
    path("logout/", views.logout, name="account_logout"),
    path("settings/security/password/", views.password_change, name="account_change_password"),
    path("settings/security/app-passwords/", app_passwords, name="account_app_passwords"),
    path("settings/security/two-factor/", include("allauth.mfa.urls")),
]
