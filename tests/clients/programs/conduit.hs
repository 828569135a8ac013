-- Fetches its argument by http-conduit, which is built on Haskell's own tls.
import qualified Data.ByteString.Lazy as Lazy
import Network.HTTP.Simple (getResponseBody, httpLBS, parseRequest)
import System.Environment (getArgs)

main :: IO ()
main = do
  [url] <- getArgs
  request <- parseRequest url
  httpLBS request >>= Lazy.putStr . getResponseBody
