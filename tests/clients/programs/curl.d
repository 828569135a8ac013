// Fetches its argument by std.net.curl, which loads libcurl.
import std.net.curl;
import std.stdio;

void main(string[] arguments)
{
    if (arguments.length < 2)
        writeln(__VERSION__ / 1000, ".", __VERSION__ % 1000);
    else
        write(get(arguments[1]));
}
