# Fetches its argument by httpclient.
import std/[httpclient, os]

if paramCount() == 0:
  echo NimVersion
else:
  echo newHttpClient().getContent(paramStr(1))
