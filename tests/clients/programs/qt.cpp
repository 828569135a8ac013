// Fetches its argument by Qt's QNetworkAccessManager.
#include <QCoreApplication>
#include <QNetworkAccessManager>
#include <QNetworkReply>
#include <QTextStream>

int main(int argc, char **argv)
{
    QCoreApplication application(argc, argv);
    QTextStream out(stdout), err(stderr);
    if (argc < 2) {
        out << qVersion() << '\n';
        return 0;
    }
    QNetworkAccessManager manager;
    QNetworkReply *reply = manager.get(QNetworkRequest(QUrl(argv[1])));
    QObject::connect(reply, &QNetworkReply::finished, &application, &QCoreApplication::quit);
    application.exec();
    out << reply->readAll();
    err << reply->errorString() << '\n';
    return reply->error() != QNetworkReply::NoError;
}
