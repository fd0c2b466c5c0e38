"""Groups, domain aliases, grants to send as somebody, policies and limits."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models import Q, Value


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Group",
            fields=[
                (
                    "address",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="group",
                        serialize=False,
                        to="accounts.address",
                    ),
                ),
                ("name", models.CharField(blank=True, max_length=200)),
                (
                    "posting",
                    models.CharField(
                        choices=[("anyone", "Anyone"), ("domain", "Domain"), ("members", "Members")],
                        default="anyone",
                        max_length=10,
                    ),
                ),
                ("send_as", models.BooleanField(default=False, help_text="members may send as the group")),
            ],
        ),
        migrations.AlterField(
            model_name="address",
            name="domain",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="addresses",
                to="accounts.domain",
            ),
        ),
        migrations.AddField(
            model_name="account",
            name="policy",
            field=models.JSONField(
                blank=True,
                db_default=Value({}, models.JSONField()),
                default=dict,
                help_text="see accounts.policies",
            ),
        ),
        migrations.AddField(
            model_name="domain",
            name="alias_of",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="other_names",
                to="accounts.domain",
            ),
        ),
        migrations.AddField(
            model_name="domain",
            name="policy",
            field=models.JSONField(
                blank=True,
                db_default=Value({}, models.JSONField()),
                default=dict,
                help_text="see accounts.policies",
            ),
        ),
        migrations.CreateModel(
            name="SendAs",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="may_send_as",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "address",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="senders",
                        to="accounts.address",
                    ),
                ),
                (
                    "domain",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="senders",
                        to="accounts.domain",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=Q(address=None, domain__isnull=False) | Q(address__isnull=False, domain=None),
                        name="send_as_one_thing",
                    ),
                    models.UniqueConstraint(fields=("account", "address"), name="send_as_address_once"),
                    models.UniqueConstraint(fields=("account", "domain"), name="send_as_domain_once"),
                ],
            },
        ),
    ]
