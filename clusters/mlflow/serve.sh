#!/bin/sh
# MLflow's server with passwords, in a container or plainly: see README.md. Settings come from the environment.
set -eu
: "${MLFLOW_BACKEND_STORE_URI:?is not set: postgresql+psycopg2://USER:PASSWORD@HOST:5432/mlflow}"
: "${MLFLOW_AUTH_ADMIN_PASSWORD:?is not set: password of the user admin, 12 characters or more}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?is not set: any long random text, the same after each start}"
: "${MLFLOW_DATA:?is not set: folder for artifacts and the users}"

export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false  # its job runners take 1.9 GB and do nothing for us
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
export MLFLOW_AUTH_CONFIG_PATH="$MLFLOW_DATA/auth.ini"
umask 077
mkdir -p "$MLFLOW_DATA/artifacts"
cat > "$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
default_permission = READ
database_uri = sqlite:///$MLFLOW_DATA/users.db
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
auth_cache_ttl_seconds = 60
END

# Once and by one process: several that meet an empty database break it.
# (Not `mlflow db upgrade URI`: everybody on the machine could read the password in the list of processes.)
python -c 'import os; from mlflow.cli import cli; cli(["db", "upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]])'
python -m mlflow.server.auth db upgrade --url "sqlite:///$MLFLOW_DATA/users.db"

exec python -m mlflow server --app-name basic-auth \
  --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" --workers 2 \
  --serve-artifacts --artifacts-destination "$MLFLOW_DATA/artifacts" \
  --allowed-hosts "${MLFLOW_ALLOWED_HOSTS:-localhost,localhost:*,127.0.0.1,127.0.0.1:*}"
